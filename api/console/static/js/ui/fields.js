/** Form fields, and a form from JSON Schema. What the schema cannot say in fields is a field of JSON. */
import { html, useId } from "../lib.js";
import { parseJson } from "../state.js";

/** A labelled field: html`<${Field} label="Reason" error=${…}>${(id) => html`<input id=${id} …>`}</${Field}>`. */
export function Field({ label, hint, error, optional, children }) {
  const id = useId();
  const about = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || null;
  return html`<div class="field"><label for=${id}>${label}${optional && html` <span class="optional">optional</span>`}</label>
    ${children(id, about)}
    ${hint && html`<div class="hint" id=${`${id}-hint`}>${hint}</div>`}${error && html`<div class="error" id=${`${id}-error`}>${error}</div>`}</div>`;
}

/** @param {{label: string, value: string, onInput: (value: string) => void, rows?: number, hint?: any, error?: any, optional?: boolean, placeholder?: string, type?: string}} props */
export function TextField({ label, value, onInput, rows, hint, error, optional, type = "text", inputRef, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error} optional=${optional}>${(id, about) => {
    const given = { id, class: "input", value, required: !optional, ref: inputRef, "aria-describedby": about, "aria-invalid": error ? "true" : null, onInput: (event) => onInput(event.currentTarget.value), ...rest };
    return rows ? html`<textarea rows=${rows} ...${given}></textarea>` : html`<input type=${type} autocomplete="off" ...${given} />`;
  }}</${Field}>`;
}

/** A few choices, all of them seen. */
export function Choices({ label, value, options, onChange, error }) {
  const name = useId();
  return html`<fieldset class="field"><legend>${label}</legend><div class="choices">
    ${options.map((option) => html`<label class="choice" key=${option}><input type="radio" name=${name} checked=${value === option} onChange=${() => onChange(option)} />${String(option)}</label>`)}
  </div>${error && html`<div class="error">${error}</div>`}</fieldset>`;
}

/** One of many. options: strings, or [value, words]. */
export function Select({ label, value, options, onChange, hint, error, optional }) {
  return html`<${Field} label=${label} hint=${hint} error=${error} optional=${optional}>${(id, about) => html`<select class="select" id=${id} aria-describedby=${about} onChange=${(event) => onChange(event.currentTarget.value)}>
    ${options.map((option) => { const [is, text] = Array.isArray(option) ? option : [option, option]; return html`<option key=${is} value=${is} selected=${is === value}>${text}</option>`; })}</select>`}</${Field}>`;
}

/** The fields of a JSON Schema of type object: [{name, kind, schema, required, initial}], what is needed first. Pure. */
export function fieldsOf(schema) {
  const properties = schema?.properties ?? {}, required = new Set(schema?.required ?? []);
  const names = [...new Set([...required, ...Object.keys(properties)])].filter((name) => name in properties);
  return names.map((name) => [name, properties[name]]).map(([name, one]) => ({
    name, schema: one, required: required.has(name), initial: one.default,
    kind: Array.isArray(one.enum) ? "enum" : one.type === "boolean" ? "bool" : one.type === "integer" || one.type === "number" ? "number" : one.type === "string" ? "text" : "json",
  }));
}

/** The values that a form starts with. */
export const initialOf = (schema) => Object.fromEntries(fieldsOf(schema).filter((field) => field.initial !== undefined)
  .map((field) => [field.name, field.kind === "json" ? JSON.stringify(field.initial, null, 2) : field.initial]));

/** What is typed, as the form's data. {data, errors}: errors by field, in words. Empty optional fields are left out. Pure. */
export function dataOf(schema, values) {
  const data = {}, errors = {};
  for (const { name, kind, required, schema: one } of fieldsOf(schema)) {
    const typed = values[name];
    if (typed === undefined || typed === "") { if (required) errors[name] = "is needed"; continue; }
    if (kind === "number") {
      const number = Number(typed);
      if (Number.isNaN(number) || (one.type === "integer" && !Number.isInteger(number))) errors[name] = one.type === "integer" ? "must be a whole number" : "must be a number";
      else data[name] = number;
    } else if (kind === "json") {
      try { data[name] = parseJson(typed); } catch { errors[name] = "is not JSON"; }
    } else data[name] = typed;
  }
  return { data, errors };
}

/** The fields of a schema. values: by name, as typed. */
export function SchemaFields({ schema, values, errors = {}, onChange }) {
  const set = (name) => (value) => onChange({ ...values, [name]: value });
  return fieldsOf(schema).map(({ name, kind, required, schema: one }) => {
    const given = { key: name, label: one.title ?? name, hint: one.description, error: errors[name], optional: !required, value: values[name] ?? "" };
    if (kind === "enum" && one.enum.length <= 4) return html`<${Choices} ...${given} value=${values[name]} options=${one.enum} onChange=${set(name)} />`;
    if (kind === "enum") return html`<${Select} ...${given} options=${["", ...one.enum]} onChange=${set(name)} />`;
    if (kind === "bool") return html`<label class="check" key=${name}><input type="checkbox" checked=${values[name] === true} onChange=${(event) => set(name)(event.currentTarget.checked)} />${given.label}</label>`;
    const long = kind === "json" || (one.maxLength ?? 0) > 200;
    return html`<${TextField} ...${given} rows=${long ? 3 : undefined} inputmode=${kind === "number" ? "decimal" : undefined} onInput=${set(name)} />`;
  });
}
