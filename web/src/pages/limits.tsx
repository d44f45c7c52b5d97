import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get, path, post, put, remove, unchanged, useMay } from "../api";
import { ask } from "../ask";
import { Empty, Filter, fits, Loading, Table, type Column } from "../components";
import { moment, number, seconds, show } from "../format";
import { t } from "../i18n";
import { LimitForm, ruleOf } from "../limitform";
import { useData } from "../live";
import { useRoute } from "../router";
import type { Limit, Limiter, Limits } from "../types";

const waiting = (limit: Limit): number => limit.limiters.reduce((sum, one) => sum + one.waiting, 0);

function applies(limit: Limit): string {
  const parts = [limit.queue ? `${t("queue")} ${show(limit.queue, 60)}` : "", limit.function ? `${t("function")} ${show(limit.function, 60)}` : "",
    limit.key ? t("perKey", { key: show(limit.key, 60) }) : ""].filter((part) => part !== "");
  return parts.join(", ") || t("everyQueue");
}

function allows(limit: Limit): string {
  if (limit.limit === undefined) return "–";
  const n = number(limit.limit);
  const text = limit.per === undefined ? t("atOnce", { n }) : t("perTime", { n, time: Number.isInteger(limit.per) && limit.per < 120 ? `${limit.per} ${t("s")}` : seconds(limit.per) });
  return limit.scope === "worker" ? `${text}, ${t("perWorker")}` : text;
}

function PushedBack({ until }: { until: string | null }): JSX.Element | null {
  return until && Date.parse(until) > Date.now() ? <> <span class="badge">{t("pushedBack", { time: moment(until) })}</span></> : null;
}

function pushBack(limit: Limit, limiter: Limiter | null, reload: () => void): void {
  const name = show(limit.name, 60);
  ask({
    title: t("pushBackTitle", { name }), text: t("pushBackText", { n: limiter?.waiting ?? waiting(limit) }), yes: t("pushBack"), seconds: 60,
    act: async (delay) => {
      const key = typeof limiter?.key === "string" && limiter.key !== "" ? { key: limiter.key } : {};
      await post(path`/api/v1/limits/${limit.name}/push-back`, { seconds: delay, ...key });
      reload();
      return t("didPushBack", { name, n: delay });
    },
  });
}

function drop(limit: Limit, reload: () => void): void {
  const name = show(limit.name, 60);
  const pause = limit.kind === "pause";
  ask({
    title: t(pause ? "resumeRuleTitle" : "deleteTitle", { name }),
    text: pause ? t("resumeRuleText") : t("deleteText", { n: waiting(limit) }), yes: t(pause ? "resume" : "delete"), reload,
    act: async () => {
      await remove(path`/api/v1/limits/${limit.name}`, unchanged(limit.etag));
      reload();
      return {
        text: t(pause ? "didResumeRule" : "didDelete", { name }),
        undo: async () => {
          await put(path`/api/v1/limits/${limit.name}`, ruleOf(limit), unchanged(null));
          reload();
          return t("didSaveLimit", { name });
        },
      };
    },
  });
}

function PauseFunction({ reload }: { reload: () => void }): JSX.Element {
  const [wanted, setWanted] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    const name = wanted.trim();
    if (name === "") return;
    ask({
      title: t("pauseFunctionTitle", { name: show(name, 60) }), text: t("pauseFunctionText"), yes: t("pause"),
      act: async () => {
        await post(path`/api/v1/functions/${name}/pause`);
        setWanted("");
        reload();
        return t("didPauseFunction", { name: show(name, 60) });
      },
    });
  };
  return <form class="filter" onSubmit={submit}><label for="function">{t("pauseFunction")}</label>
    <span class="joined"><input id="function" value={wanted} maxLength={200} autocomplete="off" spellcheck={false} placeholder="app.tasks.resize"
      onInput={(event) => setWanted(event.currentTarget.value)} /><button type="submit">{t("pause")}</button></span></form>;
}

export function LimitsPage(): JSX.Element {
  const { data, reload, forbidden } = useData("limits", () => get<Limits>("/api/v1/limits"));
  const wanted = useRoute().params.get("q") ?? "";
  const may = useMay("operate");
  const [edited, setEdited] = useState<Limit | "new" | null>(null);
  if (data === null) return <Loading forbidden={forbidden} />;
  const limits = data.limits.filter((limit) => fits(wanted, limit.name, limit.queue, limit.function, limit.kind));
  const columns: Column<Limit>[] = [
    { name: t("limit"), kind: "name", cell: (limit) => <span title={show(limit.name, 200)}>{show(limit.name, 60)}</span> },
    { name: t("kind"), cell: (limit) => show(limit.kind, 30) },
    { name: t("applies"), kind: "long", cell: (limit) => <span title={applies(limit)}>{applies(limit)}</span> },
    { name: t("allows"), cell: (limit) => <>{allows(limit)}<PushedBack until={limit.key ? null : limit.limiters[0]?.pushed_back_until ?? null} /></> },
    { name: t("used"), kind: "number", cell: (limit) => limit.limiters.length === 1 ? number(limit.limiters[0]?.used) : "–" },
    { name: t("waiting"), kind: "number", cell: (limit) => number(waiting(limit)) },
  ];
  if (may) columns.push({ name: t("actions"), cell: (limit) => <span class="buttons">
      {limit.kind !== "pause" && <button type="button" aria-label={`${t("edit")}: ${show(limit.name, 60)}`} onClick={() => setEdited(limit)}>{t("edit")}</button>}
      {limit.limit !== undefined && !limit.key && <button type="button" aria-label={`${t("pushBack")}: ${show(limit.name, 60)}`}
        onClick={() => pushBack(limit, null, reload)}>{t("pushBack")}</button>}
      <button type="button" aria-label={`${t(limit.kind === "pause" ? "resume" : "delete")}: ${show(limit.name, 60)}`}
        onClick={() => drop(limit, reload)}>{t(limit.kind === "pause" ? "resume" : "delete")}</button></span> });
  const keyed = limits.filter((limit) => limit.key)
    .flatMap((limit) => limit.limiters.filter((limiter) => limiter.key !== "").map((limiter) => ({ limit, limiter })));
  const keyColumns: Column<(typeof keyed)[number]>[] = [
    { name: t("limit"), kind: "name", cell: ({ limit }) => show(limit.name, 60) },
    { name: t("key"), kind: "long", cell: ({ limiter }) => show(limiter.key) },
    { name: t("used"), kind: "number", cell: ({ limiter }) => number(limiter.used) },
    { name: t("waiting"), kind: "number", cell: ({ limiter }) => number(limiter.waiting) },
    { name: t("state"), cell: ({ limiter }) => <PushedBack until={limiter.pushed_back_until} /> },
  ];
  if (may) keyColumns.push({ name: t("actions"), cell: ({ limit, limiter }) => limit.limit === undefined ? "–" : <button type="button"
      aria-label={`${t("pushBack")}: ${show(limit.name, 60)}, ${show(limiter.key, 60)}`} onClick={() => pushBack(limit, limiter, reload)}>{t("pushBack")}</button> });
  return <>
    <div class="head"><h2>{t("limits")}</h2><Filter />{may && <button type="button" onClick={() => setEdited("new")}>{t("addLimit")}</button>}</div>
    {edited && <LimitForm limit={edited === "new" ? null : edited} onClose={() => setEdited(null)} reload={reload} />}
    {limits.length > 0 ? <Table label={t("limits")} columns={columns} rows={limits} id={(limit) => limit.name} />
      : wanted !== "" ? <Empty text={t("noMatch")} />
      : <Empty text={t("noLimits")} command="rqxx limit set api --kind token-bucket --limit 10 --per 1s" />}
    {may && <div class="filters"><PauseFunction reload={reload} /></div>}
    {keyed.length > 0 && <><h2>{t("perKeys")}</h2><Table label={t("perKeys")} columns={keyColumns} rows={keyed} /></>}
    {data.faults.length > 0 && <><h2>{t("faults")}</h2>
      <ul>{data.faults.slice(0, 100).map((fault, i) => <li key={i} class="problem">{show(fault.name, 200)}: {show(fault.detail, 300)}</li>)}</ul></>}
  </>;
}
