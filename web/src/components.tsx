import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { clock, inUtc, isShellSafe, moment, number, plain, seconds, show } from "./format";
import { t, type Key } from "./i18n";
import { href, setParam, useRoute } from "./router";
import { useStore } from "./store";
import { statuses, type Counts, type IndexState } from "./types";

export function Time({ at, short = false }: { at: string | null; short?: boolean }): JSX.Element {
  useStore(inUtc);
  return at ? <time dateTime={at} title={at}>{short ? clock(at) : moment(at)}</time> : <>–</>;
}

const statusKeys: Record<string, Key> = {
  queued: "queued", started: "started", finished: "finished", failed: "failed", deferred: "deferred", scheduled: "scheduled",
  canceled: "canceled", stopped: "stopped", rate_limited: "rate_limited", created: "created_", deleted: "deleted_", unreadable: "unreadable",
};

export const statusText = (word: unknown): string => {
  const key = typeof word === "string" && Object.hasOwn(statusKeys, word) ? statusKeys[word] : undefined;
  return key ? t(key) : show(word, 30);
};

export function Status({ word }: { word: unknown }): JSX.Element {
  const known = typeof word === "string" && Object.hasOwn(statusKeys, word) ? word : "unreadable";
  return <span class={`status ${known}`} title={show(word, 60)}>{statusText(word)}</span>;
}

export interface Column<T> {
  name: string;
  kind?: string;   // number, long, name, optional
  cell: (row: T) => ComponentChildren;
}

const mostRows = 200;

/** A table that scrolls sideways within itself. */
export function Table<T>({ label, columns, rows, id }: {
  label: string; columns: Column<T>[]; rows: T[]; id?: (row: T, i: number) => string;
}): JSX.Element {
  const left = rows.length - mostRows;
  return <>
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead><tr>{columns.map((column, n) => <th key={n} scope="col" class={column.kind}>{column.name}</th>)}</tr></thead>
        <tbody>
          {rows.slice(0, mostRows).map((row, i) =>
            <tr key={id?.(row, i) ?? i}>{columns.map((column, n) => <td key={n} class={column.kind}>{column.cell(row)}</td>)}</tr>)}
        </tbody>
      </table>
    </div>
    {left > 0 && <p class="note">{t("more", { n: left })}</p>}
  </>;
}

const titles = { queued: "Queued", started: "Started", finished: "Finished", failed: "Failed", deferred: "Deferred", scheduled: "Scheduled", canceled: "Canceled" } as const;
export const countTitle = (status: (typeof statuses)[number]): string => t(titles[status]);

/** Counts by status; with `link` each leads to its jobs. */
export function Strip({ counts, link, current }: { counts: Counts; link?: (status: string) => string; current?: string }): JSX.Element {
  return <div class="strip">
    {statuses.map((status) => {
      const inside = <><b class={counts[status] ? status : ""}>{number(counts[status])}</b><span>{t(status)}</span></>;
      return link ? <a key={status} class="count" href={link(status)} aria-current={current === status ? "true" : undefined}>{inside}</a>
        : <div key={status} class="count">{inside}</div>;
    })}
  </div>;
}

async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages that are neither local nor encrypted have no clipboard.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function Command({ text }: { text: string }): JSX.Element {
  const [copied, setCopied] = useState(false);
  const copy = () => {
    copyText(text).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    }, () => {});
  };
  return <span class="command"><code>{text}</code> <button type="button" aria-label={`${t("copy")}: ${text}`} onClick={copy}>{t(copied ? "copied" : "copy")}</button></span>;
}

export function Empty({ text, command }: { text: string; command?: string }): JSX.Element {
  return <p class="empty">{text} {command && <Command text={command} />}</p>;
}

/** In place of what there is no answer for yet, or never will be. */
export const Loading = ({ forbidden = false }: { forbidden?: boolean }): JSX.Element => <p class="empty">{t(forbidden ? "forbidden" : "loading")}</p>;

export function Json({ value, label }: { value: unknown; label: string }): JSX.Element {
  return <pre tabIndex={0} role="region" aria-label={label}>{plain(clip(JSON.stringify(value, null, 2) ?? ""))}</pre>;
}

const mostText = 50_000;
export const clip = (text: string): string => (text.length > mostText ? `${text.slice(0, mostText)}…` : text);

const oldSeconds = 10;

/** What the index of jobs does not have yet, or may not have. */
export function IndexNote({ index }: { index: IndexState }): JSX.Element | null {
  if (!index.complete)
    return <p class="note" role="status">{t("indexing", { n: index.jobs ?? 0 })} <progress max={1} value={index.progress} aria-label={t("progress")} /></p>;
  return index.max_age !== null && index.max_age > oldSeconds ? <p class="note">{t("indexOld", { age: seconds(index.max_age) })}</p> : null;
}

export function JobLink({ id, size = 8 }: { id: unknown; size?: number }): JSX.Element {
  return typeof id === "string" && id !== "" ? <a href={href(["jobs", id])} title={show(id, 200)}>{show(id, size)}</a> : <>{show(id, size)}</>;
}

export function QueueLink({ name }: { name: unknown }): JSX.Element {
  return typeof name === "string" && name !== "" ? <a href={href(["queues", name])} title={show(name, 200)}>{show(name, 40)}</a> : <>{show(name, 40)}</>;
}

export function Facts({ rows }: { rows: [string, ComponentChildren][] }): JSX.Element {
  return <dl>{rows.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>;
}

/** A filter whose text is in the address. */
export function Filter({ name = "q", label = t("filter") }: { name?: string; label?: string }): JSX.Element {
  const value = useRoute().params.get(name) ?? "";
  return <label class="filter"><span>{label}</span>
    <input type="search" value={value} data-filter maxLength={200} onInput={(event) => setParam(name, event.currentTarget.value)} /></label>;
}

/** `any`: what it says where nothing is chosen. */
export function Choice({ name, label, options, any = t("any") }: { name: string; label: string; options: [string, string][]; any?: string }): JSX.Element {
  const value = useRoute().params.get(name) ?? "";
  return <label class="filter"><span>{label}</span>
    <select value={value} onChange={(event) => setParam(name, event.currentTarget.value)}>
      <option value="">{any}</option>
      {value !== "" && !options.some(([one]) => one === value) && <option value={value}>{show(value, 40)}</option>}
      {options.map(([one, text]) => <option key={one} value={one}>{text}</option>)}
    </select></label>;
}

/** Whether one of the values has the text in it, whatever the case. */
export const fits = (text: string, ...values: unknown[]): boolean =>
  text === "" || values.some((value) => typeof value === "string" && value.toLowerCase().includes(text.toLowerCase()));

/** A modal dialog that is open while it is there. */
export function Dialog({ label, onClose, children, className = "" }: {
  label: string; onClose: () => void; children: ComponentChildren; className?: string;
}): JSX.Element {
  const node = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {   // Before the next key is pressed.
    const before = document.activeElement;
    node.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return <dialog ref={node} class={className} aria-label={label} onClose={onClose} onCancel={onClose}
    onClick={(event) => { if (event.target === node.current) onClose(); }}>{children}</dialog>;
}

export function Commands({ of, verbs }: { of: unknown; verbs: string[] }): JSX.Element | null {
  if (!isShellSafe(of)) return null;   // Nobody should paste what a job's producer made up.
  return <><h2>{t("commands")}</h2><ul class="commands">{verbs.map((verb) => <li key={verb}><Command text={`${verb} ${of}`} /></li>)}</ul></>;
}

