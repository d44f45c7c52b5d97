// English and Russian: ?lang=, else what the browser prefers.

import { en } from "./en";
import { ru } from "./ru";

export type Key = keyof typeof en;
export type Lang = "en" | "ru";

function choose(): Lang {
  const asked = new URLSearchParams(location.search).get("lang");
  if (asked === "en" || asked === "ru") return asked;
  for (const language of navigator.languages) {
    if (language.startsWith("ru")) return "ru";
    if (language.startsWith("en")) return "en";
  }
  return "en";
}

export const lang = choose();
document.documentElement.lang = lang;

const texts: Record<Key, string> = lang === "ru" ? ru : en;
const plurals = new Intl.PluralRules(lang);
const order = lang === "ru" ? ["one", "few", "many"] : ["one", "other"];

/** The text of `key`. A number `n` chooses among forms and is written in the language's way. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  let text = texts[key];
  if (typeof values.n === "number" && text.includes("|")) {
    const forms = text.split("|");
    const form = order.indexOf(plurals.select(values.n));
    text = forms[form < 0 ? forms.length - 1 : form] ?? "";
  }
  return text.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = values[name] ?? "";
    return typeof value === "number" ? value.toLocaleString(lang) : value;
  });
}
