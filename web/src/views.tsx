// Searches that are kept in this browser, beside some that everybody needs.

import type { JSX } from "preact";
import { show } from "./format";
import { t } from "./i18n";
import { href } from "./router";
import { Store, useStore } from "./store";

const usual = ["status:failed age<1h", "status:started took>1m", "status:queued age>5m"];
const most = 20;

function load(): string[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem("views") ?? "[]");
    return Array.isArray(kept) ? kept.filter((one): one is string => typeof one === "string" && one !== "").slice(0, most) : [];
  } catch {
    return [];
  }
}

const kept = new Store<string[]>(load());
kept.follow(() => localStorage.setItem("views", JSON.stringify(kept.value)));

export function Views({ text }: { text: string }): JSX.Element {
  const own = useStore(kept);
  const chip = (one: string) => <a key={one} class="tag" href={href(["jobs"], { q: one })} aria-current={one === text ? "true" : undefined}>{show(one, 60)}</a>;
  return <p class="views">{t("views")} {usual.map(chip)} {own.map(chip)}
    {text !== "" && !usual.includes(text) && (own.includes(text)
      ? <button type="button" onClick={() => kept.set(own.filter((one) => one !== text))}>{t("forgetView")}</button>
      : <button type="button" disabled={own.length >= most} onClick={() => kept.set([...own, text])}>{t("keepView")}</button>)}</p>;
}
