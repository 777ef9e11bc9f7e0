/** The boards, as the navigation lists them. */
export const NAV = [
  { board: "run", label: "Runs", icon: "runs", to: { board: "run" }, key: "h" },
  { board: "hitl-inbox", label: "Inbox", icon: "inbox", to: { board: "hitl-inbox" }, key: "i" },
  { board: "ops", label: "Ops", icon: "ops", to: { board: "ops" }, key: "o" },
  { board: "throughput", label: "Throughput", icon: "chart", to: { board: "throughput" }, key: "t" },
  { board: "recipe", label: "Recipes", icon: "book", to: { board: "recipe" }, key: "r" },
  { board: "signoff", label: "Sign-off", icon: "seal", to: { board: "signoff" }, key: "s" },
];
