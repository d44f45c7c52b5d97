import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get, path, post, remove, session, useMay } from "../api";
import { ask } from "../ask";
import { Command, Empty, Facts, Loading, Table, Time, type Column } from "../components";
import { useHas } from "../features";
import { inUtc, show } from "../format";
import { t } from "../i18n";
import { useData } from "../live";
import { useStore } from "../store";
import type { Token } from "../types";

const scopes = ["read", "operate", "admin"];

function NewToken({ reload }: { reload: () => void }): JSX.Element {
  const [form, setForm] = useState({ name: "", scope: "read", queues: "*", days: "90" });
  const [made, setMade] = useState("");
  const [problem, setProblem] = useState("");
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      const answer = await post<{ token: unknown }>("/api/v1/tokens", {
        name: form.name, scopes: [form.scope], queues: form.queues.split(",").map((one) => one.trim()).filter((one) => one !== ""),
        ...(form.days === "" ? {} : { expires_in: Number(form.days) * 86400 }) });
      setMade(typeof answer.token === "string" ? answer.token : "");
      setProblem("");
      setForm({ ...form, name: "" });
      reload();
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return <>
    <form class="filters" onSubmit={submit}>
      <label class="filter"><span>{t("name")}</span><input value={form.name} required maxLength={100} autocomplete="off" onInput={(event) => setForm({ ...form, name: event.currentTarget.value })} /></label>
      <label class="filter"><span>{t("scope")}</span><select value={form.scope} onChange={(event) => setForm({ ...form, scope: event.currentTarget.value })}>
        {scopes.map((one) => <option key={one} value={one}>{one}</option>)}</select></label>
      <label class="filter"><span>{t("queues")}</span><input value={form.queues} required maxLength={500} onInput={(event) => setForm({ ...form, queues: event.currentTarget.value })} /></label>
      <label class="filter"><span>{t("days")}</span><input type="number" min={1} max={3650} value={form.days} onInput={(event) => setForm({ ...form, days: event.currentTarget.value })} /></label>
      <button type="submit" class="main">{t("add")}</button>
    </form>
    {problem !== "" && <p class="problem" role="alert">{problem}</p>}
    {made !== "" && <p class="made" role="status">{t("tokenOnce")} <Command text={made} /></p>}
  </>;
}

function Tokens(): JSX.Element {
  const { data, reload } = useData("tokens", () => get<{ tokens: Token[] }>("/api/v1/tokens"));
  if (data === null) return <Loading />;
  const { tokens } = data;
  const drop = (token: Token) => ask({
    title: t("revokeTitle", { name: show(token.name, 60) }), text: t("revokeText"), yes: t("revoke"),
    act: async () => {
      await remove(path`/api/v1/tokens/${token.id}`);
      reload();
      return t("didRevoke", { name: show(token.name, 60) });
    },
  });
  const columns: Column<Token>[] = [
    { name: t("name"), kind: "name", cell: (one) => show(one.name, 60) }, { name: t("scope"), cell: (one) => show(one.scope, 20) },
    { name: t("queues"), kind: "long", cell: (one) => show(one.queues.join(", "), 100) }, { name: t("created"), kind: "optional", cell: (one) => <Time at={one.created_at} /> },
    { name: t("expires"), cell: (one) => one.expires_at ? <Time at={one.expires_at} /> : t("never") },
    { name: t("actions"), cell: (one) => <button type="button" aria-label={`${t("revoke")}: ${show(one.name, 60)}`} onClick={() => drop(one)}>{t("revoke")}</button> },
  ];
  return <>{tokens.length > 0 ? <Table label={t("tokens")} columns={columns} rows={tokens} id={(one) => one.id} /> : <Empty text={t("noTokens")} />}<NewToken reload={reload} /></>;
}

export function SettingsPage(): JSX.Element {
  const utc = useStore(inUtc);
  const who = useStore(session);
  const admin = useMay("admin");
  const tokens = useHas("/api/v1/tokens");
  return <>
    <div class="head"><h2>{t("settings")}</h2></div>
    <p><label><input type="checkbox" checked={utc} onChange={(event) => inUtc.set(event.currentTarget.checked)} /> {t("utc")}</label></p>
    {who && <Facts rows={[[t("you"), show(who.name, 60)], [t("scope"), show(who.scopes.join(", "), 60)], [t("queues"), show(who.queues.join(", "), 200)],
      [t("changes"), who.read_only ? t("readOnly") : t("allowedChanges")]]} />}
    {tokens && admin && <><h2>{t("tokens")}</h2><Tokens /></>}
    <h2>{t("api")}</h2>
    <ul class="commands"><li><a href="api/v1/openapi.json">OpenAPI 3.1: /api/v1/openapi.json</a></li><li><a href="metrics">Prometheus: /metrics</a></li></ul>
  </>;
}
