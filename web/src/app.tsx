import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Operations } from "./actions";
import { logIn, logOut, session, tokenWanted } from "./api";
import { Questions, busy, forgetNotice } from "./ask";
import { Dialog } from "./components";
import { show } from "./format";
import { useRoutes } from "./features";
import { lang, t, type Key } from "./i18n";
import { health, paused } from "./live";
import { BatchesPage, BatchPage } from "./pages/batches";
import { EventsPage } from "./pages/events";
import { FailurePage, FailuresPage } from "./pages/failures";
import { JobPage } from "./pages/job";
import { JobsPage } from "./pages/jobs";
import { LimitsPage } from "./pages/limits";
import { OverviewPage } from "./pages/overview";
import { QueuePage, QueuesPage } from "./pages/queues";
import { RedisPage } from "./pages/redis";
import { SchedulesPage } from "./pages/schedules";
import { SettingsPage } from "./pages/settings";
import { WorkersPage } from "./pages/workers";
import { Palette } from "./palette";
import { go, href, useRoute } from "./router";
import { Store, useStore } from "./store";

/** `route`: without it at the server there is no such page. */
export const pages: { name: Key; part: string; key: string; route?: string }[] = [
  { name: "overview", part: "", key: "o" }, { name: "queues", part: "queues", key: "q" }, { name: "jobs", part: "jobs", key: "j" },
  { name: "failures", part: "failures", key: "f", route: "/api/v1/failures" }, { name: "workers", part: "workers", key: "w" },
  { name: "schedules", part: "schedules", key: "s", route: "/api/v1/schedules" }, { name: "limits", part: "limits", key: "l" }, { name: "batches", part: "batches", key: "b" },
  { name: "audit", part: "events", key: "e", route: "/api/v1/audit" }, { name: "redis", part: "redis", key: "r", route: "/api/v1/redis" }, { name: "settings", part: "settings", key: "t" },
];

type Layer = "" | "palette" | "help";
const layer = new Store<Layer>("");

/** When the shown data came; counts up by itself. */
function Live(): JSX.Element {
  const { at, problem } = useStore(health);
  const rests = useStore(paused);
  const wanted = useStore(tokenWanted);
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const n = Math.max(0, Math.round((Math.max(now, at) - at) / 1000));
  const stale = wanted !== "" || (problem !== "" && !rests);
  const said = wanted !== "" ? t("tokenNeeded") : rests ? t("paused") : problem !== "" ? (at ? `${problem}; ${t("dataOf", { n })}` : problem)
    : at ? t("live") : t("connecting");
  return <>
    <p id="live" role="status" aria-live={stale ? "off" : "polite"} class={stale ? "stale" : rests ? "rests" : ""}>{said}</p>
    {at > 0 && !stale && <span id="age" title={t("age")}><span class="unseen">{t("age")} </span>{n} {t("s")}</span>}
  </>;
}

function TokenForm(): JSX.Element {
  const refused = useStore(tokenWanted) === "refused";
  const input = useRef<HTMLInputElement>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => input.current?.focus(), []);
  const submit = (event: Event) => {
    event.preventDefault();
    setProblem("");
    logIn(input.current?.value ?? "").catch((error: Error) => setProblem(error.message));
  };
  return <form class="ask" onSubmit={submit}>
    <label for="token">{t(refused ? "tokenRefused" : "tokenAsk")}</label>
    <input ref={input} id="token" type="password" autocomplete="off" required pattern="[ -~]+" />
    <button type="submit">{t("continue")}</button>
    {problem !== "" && <p class="problem" role="alert">{problem}</p>}
  </form>;
}

/** Who has logged in, and the way out. */
function LoggedIn(): JSX.Element | null {
  const who = useStore(session);
  if (who?.auth !== "session") return null;
  return <><span id="who" title={who.scopes.join(", ")}>{show(who.name, 30)}</span>
    <button id="logout" type="button" onClick={() => void logOut()}>{t("logOut")}</button></>;
}

function Page(): JSX.Element {
  const { parts } = useRoute();
  const [page = "", name] = parts;
  if (parts.length === 0) return <OverviewPage />;
  if (parts.length === 1) {
    if (page === "queues") return <QueuesPage />;
    if (page === "jobs") return <JobsPage />;
    if (page === "workers") return <WorkersPage />;
    if (page === "limits") return <LimitsPage />;
    if (page === "batches") return <BatchesPage />;
    if (page === "failures") return <FailuresPage />;
    if (page === "schedules") return <SchedulesPage />;
    if (page === "events") return <EventsPage />;
    if (page === "redis") return <RedisPage />;
    if (page === "settings") return <SettingsPage />;
  }
  if (name !== undefined && parts.length === 2) {
    if (page === "queues") return <QueuePage key={name} name={name} />;
    if (page === "jobs") return <JobPage key={name} id={name} />;
    if (page === "batches") return <BatchPage key={name} id={name} />;
    if (page === "failures") return <FailurePage key={name} id={name} />;
  }
  return <p class="empty">{t("noSuchPage")}<a href={href([])}>← {t("overview")}</a></p>;
}

function Help(): JSX.Element {
  const close = () => layer.set("");
  const rows: [string, string][] = [
    ["?", t("thisHelp")], ["Ctrl K", t("palette")], ["/", t("focusFilter")], ["p", t("pauseLive")],
    ...pages.map((page): [string, string] => [`g ${page.key}`, t("goTo", { page: t(page.name) })]), ["Esc", t("close")]];
  return <Dialog label={t("shortcuts")} onClose={close}>
    <h2>{t("shortcuts")}</h2>
    <dl class="keys">{rows.map(([keys, what]) => <div key={keys}><dt><kbd>{keys}</kbd></dt><dd>{what}</dd></div>)}</dl>
    <p class="buttons"><button type="button" onClick={close}>{t("close")}</button></p>
  </Dialog>;
}

/** Keys of the whole page; none while something is typed. In layouts without Latin letters they go by their place. */
function useKeys(): void {
  useEffect(() => {
    let g = 0;
    const press = (event: KeyboardEvent) => {
      const latin = /^[\x20-\x7e]$/.test(event.key) && !(lang === "ru" && event.code === "Slash" && /[.,]/.test(event.key));
      const letter = latin ? event.key.toLowerCase() : event.code === "Slash" ? (event.shiftKey ? "?" : "/")
        : event.code.startsWith("Key") ? event.code.slice(3).toLowerCase() : "";
      if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && letter === "k") {
        event.preventDefault();
        if (!busy()) layer.set(layer.value === "palette" ? "" : "palette");
        return;
      }
      const typed = event.target instanceof HTMLElement && event.target.closest("input, select, textarea") !== null;
      if (typed || event.ctrlKey || event.metaKey || event.altKey || busy() || layer.value !== "" || tokenWanted.value !== "") return;
      const after = Date.now() - g < 1500;
      g = 0;
      const page = pages.find((one) => one.key === letter);
      if (after && page) go(...(page.part ? [page.part] : []));
      else if (letter === "g") g = Date.now();
      else if (letter === "p") paused.set(!paused.value);
      else if (letter === "?") layer.set("help");
      else if (letter === "/") {
        event.preventDefault();
        const filter = document.querySelector<HTMLElement>("main [data-filter]");
        if (filter) filter.focus();
        else layer.set("palette");
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

export function App(): JSX.Element {
  const routes = useRoutes();
  const there = pages.filter((page) => page.route === undefined || routes.has(page.route));
  const { parts } = useRoute();
  const rests = useStore(paused);
  const shown = useStore(layer);
  const wanted = useStore(tokenWanted);
  const main = useRef<HTMLElement>(null);
  const place = parts.join("/");
  const before = useRef(place);
  useKeys();
  useLayoutEffect(() => {
    const page = pages.find((one) => one.part === (parts[0] ?? ""));
    document.title = [parts[1] ? show(parts[1], 40) : page && page.part ? t(page.name) : "", "rqxx"].filter((part) => part !== "").join(" · ");
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
    if (before.current !== place) {
      forgetNotice();
      main.current?.focus();
      scrollTo(0, 0);
    }
    before.current = place;
  }, [place]);
  const other = lang === "ru" ? "en" : "ru";
  return <>
    <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>{t("skip")}</a>
    <header>
      <h1><a href={href([])}>rqxx</a></h1>
      <nav aria-label={t("pages")}>
        {there.map((page) => <a key={page.part} href={href(page.part ? [page.part] : [])}
          aria-current={(parts[0] ?? "") === page.part ? "page" : undefined}>{t(page.name)}</a>)}
      </nav>
      <div class="tools">
        <Live />
        <button id="pause" type="button" aria-pressed={rests} onClick={() => paused.set(!rests)}>{t(rests ? "resume" : "pause")}</button>
        <button id="commands" type="button" aria-label={t("palette")} title={`${t("palette")} (Ctrl K)`} onClick={() => layer.set("palette")}>⌘</button>
        <button id="help" type="button" aria-label={t("shortcuts")} title={`${t("shortcuts")} (?)`} onClick={() => layer.set("help")}>?</button>
        <LoggedIn />
        <a id="lang" title={other === "ru" ? "Русский" : "English"} href={`?lang=${other}`} lang={other} hreflang={other}
          onClick={(event) => { event.preventDefault(); location.assign(`?lang=${other}${location.hash}`); }}>{other.toUpperCase()}</a>
      </div>
    </header>
    <Questions><Operations /></Questions>
    <main id="main" ref={main} tabIndex={-1}>{wanted !== "" ? <TokenForm /> : <Page />}</main>
    {shown === "palette" && <Palette pages={there} onClose={() => layer.set("")} />}
    {shown === "help" && <Help />}
  </>;
}
