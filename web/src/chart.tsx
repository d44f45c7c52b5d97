// Lines over time, drawn by uPlot.

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { get } from "./api";
import { bytes, inUtc, moment, number, seconds } from "./format";
import { useHas } from "./features";
import { lang, t, type Key } from "./i18n";
import { useData } from "./live";
import { setParam, useRoute } from "./router";
import type { History } from "./types";

export interface Line {
  series: string;
  name: Key;
  color: string;   // Of the style sheet's variables.
}

const units = {
  rate: (value: number) => value.toLocaleString(lang, { maximumFractionDigits: 1 }),
  count: number,
  time: seconds,
  memory: bytes,
};
export type Unit = keyof typeof units;

const height = 170;
const colorOf = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(lines: Line[], unit: Unit, width: number): uPlot.Options {
  const text = units[unit];
  const axis = { stroke: colorOf("--dim"), grid: { stroke: colorOf("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const zone = inUtc.value ? { timeZone: "UTC" } : {};
  const hours = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", ...zone });
  const days = new Intl.DateTimeFormat(lang, { day: "numeric", month: "short", hour: "2-digit", ...zone });
  return {
    width, height, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } }, padding: [10, 12, 0, 0],
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [
      { ...axis, size: 26, values: (_, marks) => marks.map((mark) => ((marks[marks.length - 1] ?? 0) - (marks[0] ?? 0) > 90_000 ? days : hours).format(mark * 1000)) },
      { ...axis, size: 62, values: (_, marks) => marks.map((mark) => text(mark)) },
    ],
    series: [{}, ...lines.map((line) => ({ stroke: colorOf(line.color), width: 1.5, fill: `${colorOf(line.color)}1f`, points: { show: false } }))],
  };
}

function last(values: (number | null)[] | undefined): number | null {
  for (let i = (values?.length ?? 0) - 1; i >= 0; --i) if (values?.[i] != null) return values[i] ?? null;
  return null;
}

/** A chart whose legend has the newest values, or those under the pointer. */
export function Chart({ title, history, lines, unit }: { title: string; history: History; lines: Line[]; unit: Unit }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const legend = useRef<HTMLDListElement>(null);
  const time = useRef<HTMLElement>(null);
  const data = [history.times, ...lines.map((line) => history.series[line.series] ?? history.times.map(() => null))] as uPlot.AlignedData;
  const held = useRef(data);
  held.current = data;

  const tell = (at: number | null | undefined) => {
    lines.forEach((_, i) => {
      const values = held.current[i + 1] as (number | null)[];
      const value = at == null ? last(values) : values[at];
      const cell = legend.current?.querySelectorAll("dd")[i];
      if (cell) cell.textContent = value == null ? "–" : units[unit](value);
    });
    if (time.current) time.current.textContent = at == null ? "" : moment(new Date((held.current[0][at] ?? 0) * 1000).toISOString());
  };
  useEffect(() => {
    const node = box.current;
    if (!node) return;
    const draw = () => {
      chart.current?.destroy();
      const made = options(lines, unit, Math.max(node.clientWidth, 120));
      made.hooks = { setCursor: [(one) => tell(one.cursor.idx)] };
      chart.current = new uPlot(made, held.current, node);
    };
    draw();
    const sized = new ResizeObserver(() => chart.current?.setSize({ width: Math.max(node.clientWidth, 120), height }));
    sized.observe(node);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", draw);
    return () => {
      sized.disconnect();
      theme.removeEventListener("change", draw);
      chart.current?.destroy();
      chart.current = null;
    };
  }, [title, unit]);
  useEffect(() => {
    chart.current?.setData(data);
    tell(chart.current?.cursor.idx);
  }, [history]);

  return <figure class="chart">
    <figcaption>{title} <small ref={time} /></figcaption>
    <dl ref={legend} class="legend">
      {lines.map((line) => <div key={line.series}><dt><i class={`swatch ${line.color.slice(2)}`} />{t(line.name)}</dt><dd /></div>)}
    </dl>
    <div ref={box} class="plot" aria-hidden="true" />
  </figure>;
}

export const spans = ["15m", "1h", "6h", "24h", "72h"];

/** The charts of the cluster, or of one queue. */
export function Charts({ queue }: { queue?: string }): JSX.Element | null {
  const { params } = useRoute();
  const asked = params.get("span") ?? "";
  const span = spans.includes(asked) ? asked : "15m";
  return useHas("/api/v1/history") ? <Drawn key={`${queue} ${span}`} span={span} queue={queue} /> : null;
}

function Drawn({ span, queue }: { span: string; queue: string | undefined }): JSX.Element | null {
  const query = new URLSearchParams({ span, points: "300", ...(queue === undefined ? {} : { queue }) }).toString();
  const { data, forbidden } = useData(`history ${query}`, () => get<History>(`/api/v1/history?${query}`), span === "15m" ? 5000 : 15_000);
  if (forbidden) return null;
  return <section class="charts" aria-label={t("charts")}>
    <div class="head"><h2>{t("charts")}</h2>
      <span class="buttons" role="group" aria-label={t("span")}>{spans.map((one) => <button key={one} type="button" aria-pressed={one === span}
        onClick={() => setParam("span", one === "15m" ? "" : one)}>{one.replace("m", ` ${t("min")}`).replace("h", ` ${t("h")}`)}</button>)}</span></div>
    {data && <div class="grid">
      <Chart title={t("throughput")} history={data} unit="rate" lines={[
        { series: "finished", name: "finished", color: "--good" }, { series: "failed", name: "failed", color: "--bad" },
        { series: "retried", name: "retried", color: "--wait" }]} />
      <Chart title={t("waitTime")} history={data} unit="time" lines={queue === undefined ? [
        { series: "wait_p95", name: "p95", color: "--busy" }, { series: "wait_p50", name: "p50", color: "--good" }]
        : [{ series: "oldest_age", name: "oldest", color: "--busy" }]} />
      <Chart title={t("waitingJobs")} history={data} unit="count" lines={[
        { series: "queued", name: "queued", color: "--wait" }, { series: "started", name: "started", color: "--busy" }]} />
      {queue === undefined && <Chart title={t("utilisation")} history={data} unit="count" lines={[
        { series: "slots", name: "slots", color: "--dim" }, { series: "busy", name: "busy", color: "--busy" }]} />}
    </div>}
  </section>;
}

/** A row of bars, the newest on the right. */
export function Spark({ values, label }: { values: (number | null)[]; label: string }): JSX.Element {
  const most = Math.max(1, ...values.map((value) => value ?? 0));
  const width = 100 / Math.max(values.length, 1);
  return <svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label={label}>
    {values.map((value, i) => {
      const size = value ? Math.max((value / most) * 20, 1) : 0;
      return size > 0 && <rect key={i} x={i * width} y={20 - size} width={width * 0.8} height={size} />;
    })}
  </svg>;
}
