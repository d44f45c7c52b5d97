import type { JSX } from "preact";
import { get } from "../api";
import { Empty, Facts, Loading, Table, Time } from "../components";
import { DoctorSection } from "../doctor";
import { bytes, number, seconds, show } from "../format";
import { t } from "../i18n";
import { useData } from "../live";
import type { RedisHealth } from "../types";

const flat = (all: Record<string, unknown>): [string, string][] =>
  Object.entries(all).slice(0, 40).map(([name, value]) => [name.replace(/_/g, " "), typeof value === "number" ? number(value) : show(value, 200)]);

const ms = (value: number | null): string => (value === null ? "–" : `${value.toFixed(2)} ${t("ms")}`);

export function RedisPage(): JSX.Element {
  const { data, forbidden } = useData("redis", () => get<{ redis: RedisHealth }>("/api/v1/redis"));
  if (data === null) return <Loading forbidden={forbidden} />;
  const { redis } = data;
  return <>
    <div class="head"><h2>Redis</h2></div>
    {redis.findings.length === 0 ? <p class="note">{t("noFindings")}</p>
      : <ul class="alerts">{redis.findings.map((one) => <li key={one.code} class={one.level}>{show(one.text, 300)}</li>)}</ul>}
    <Facts rows={[
      [t("version"), `${show(redis.version, 40)} (${show(redis.mode, 30)}, ${show(redis.role, 30)})`], [t("uptime"), seconds(redis.uptime)],
      [t("rtt"), `p50 ${ms(redis.rtt.p50)}, p99 ${ms(redis.rtt.p99)}`], [t("opsPerSecond"), number(redis.ops_per_second)],
      [t("memory"), `${bytes(redis.memory.used)}${redis.memory.max > 0 ? ` / ${bytes(redis.memory.max)}` : ""} (${t("peak")} ${bytes(redis.memory.peak)})`],
      [t("eviction"), show(redis.memory.policy, 40)], [t("evicted"), number(redis.evicted_keys)], [t("expired"), number(redis.expired_keys)],
      [t("clients"), `${number(redis.clients)} (${t("blocked", { n: number(redis.blocked_clients) })})`],
    ]} />
    <DoctorSection />
    <h2>{t("persistence")}</h2><Facts rows={flat(redis.persistence)} />
    <h2>{t("replication")}</h2><Facts rows={flat(redis.replication)} />
    <h2>{t("keys")}: {number(redis.keys.total)}</h2>
    <Table label={t("keys")} rows={redis.keys.families} columns={[
      { name: t("family"), kind: "long", cell: (one) => <span title={show(one.family, 200)}>{show(one.family, 60)}</span> },
      { name: t("keys"), kind: "number", cell: (one) => number(one.keys) }, { name: t("memory"), kind: "number", cell: (one) => bytes(one.bytes) }]} />
    {redis.largest.length > 0 && <><h2>{t("largest")}</h2><Table label={t("largest")} rows={redis.largest} columns={[
      { name: t("key"), kind: "long", cell: (one) => <span title={show(one.key, 300)}>{show(one.key, 100)}</span> },
      { name: t("memory"), kind: "number", cell: (one) => bytes(typeof one.bytes === "number" ? one.bytes : null) }]} /></>}
    <h2>{t("slowLog")}</h2>
    {redis.slowlog.length === 0 ? <Empty text={t("noSlow")} /> : <Table label={t("slowLog")} rows={redis.slowlog} columns={[
      { name: t("when"), cell: (one) => <Time at={one.at} /> }, { name: t("took"), kind: "number", cell: (one) => seconds(one.micros / 1e6) },
      { name: t("command"), kind: "long", cell: (one) => <span title={show(one.command, 300)}>{show(one.command)}</span> }]} />}
  </>;
}
