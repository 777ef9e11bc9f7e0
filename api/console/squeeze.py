"""The console's modules as they are sent: the same program, without the comments and the blanks that only its readers need."""

import re

#: Where a slash begins a regular expression, and is no division: after an operator, an opening bracket, or one of these words.
BEFORE_REGEX = re.compile(r"(?:^|[(,=:\[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|do|else|void|delete|await))$")
BLANKS = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)
REGEX = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\]|\\.)*\])+/[a-z]*")
WORD = re.compile(r"[\w$]+")
#: The text of a template, up to its end or to the code in it.
TEXT = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*(`|\$\{)", re.DOTALL)
INDENTATION = re.compile(r"\n\s+")


def squeezed(code: str) -> str:
    """What the module says, in fewer characters. Lines end where they could end a statement; what a template says stays, but for its
    indentation.
    """
    out: list[str] = []
    depths: list[int] = []  # of the brackets around the code in each template that is open
    depth, at = 0, 0
    last = ""  # what stands before, but for blanks
    while at < len(code):
        char = code[at]
        found = None
        if blanks := BLANKS.match(code, at):
            at = blanks.end()
            out.append(between(last, code[at : at + 1], "\n" in blanks[0]))
            continue
        if char in "\"'":
            found = STRING.match(code, at)
        elif char == "/" and BEFORE_REGEX.search(last):
            found = REGEX.match(code, at)
        elif char.isalnum() or char in "_$":
            found = WORD.match(code, at)
        elif char == "`" or (char == "}" and depths and depths[-1] == depth):
            if char == "}":
                depths.pop()
            found = TEXT.match(code, at + 1)
            assert found is not None, "a template does not end"
            if found[1] == "${":
                depths.append(depth)
            last = INDENTATION.sub("\n", code[at : found.end()])
            out.append(last)
            at = found.end()
            continue
        token = found[0] if found else char
        depth += {"{": 1, "}": -1}.get(token, 0)
        out.append(token)
        last = token
        at += len(token)
    return "".join(out).strip() + "\n"


def between(before: str, after: str, is_line: bool) -> str:
    """What has to stand between two tokens."""
    if before[-1:] in "{([,;" or after in "})],;.":
        return ""
    if is_line:
        return "\n"
    joined = before[-1:] + after
    return " " if re.fullmatch(r"[\w$]{2}|\+\+|--|//|/\*", joined) else ""
