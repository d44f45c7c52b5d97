import { lang, t } from "./i18n";
import { Store } from "./store";

const unprintable = /[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Control characters, and those that turn the direction of writing, are of no use here; colours are left out. */
export function plain(text: string): string {
  return text.replace(/\x1b\[[0-9;:]*m/g, "").replace(/\r\n?/g, "\n").replace(unprintable, "\ufffd");
}

/** Any value from a job as bounded text. */
export function show(value: unknown, size = 120): string {
  if (value === null || value === undefined || value === "") return "–";
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "–";
  const short = text.length > size ? text.slice(0, size) : text;
  return plain(short) + (text.length > size ? "…" : "");
}

export const number = (value: unknown): string => (typeof value === "number" ? value.toLocaleString(lang) : "–");

const decimals = (value: number, digits: number) =>
  value.toLocaleString(lang, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false });

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `< 1 ${t("ms")}`;
  if (value < 1) return `${Math.round(value * 1000)} ${t("ms")}`;
  if (value < 120) return `${decimals(value, value < 10 ? 2 : 1)} ${t("s")}`;
  return value < 7200 ? `${Math.round(value / 60)} ${t("min")}` : `${decimals(value / 3600, 1)} ${t("h")}`;
}

export function memory(kilobytes: number | null | undefined): string {
  if (kilobytes === null || kilobytes === undefined) return "–";
  if (kilobytes < 1024) return `${decimals(kilobytes, kilobytes < 10 ? 1 : 0)} ${t("kB")}`;
  return kilobytes < 1048576 ? `${decimals(kilobytes / 1024, kilobytes < 102400 ? 1 : 0)} ${t("MB")}`
    : `${decimals(kilobytes / 1048576, 2)} ${t("GB")}`;
}

export const bytes = (value: number | null | undefined): string => memory(value == null ? null : value / 1024);

/** Whether times are shown in UTC instead of this machine's time zone. */
export const inUtc = new Store(localStorage.getItem("zone") === "utc");
inUtc.follow(() => localStorage.setItem("zone", inUtc.value ? "utc" : "local"));

export const moment = (text: string): string =>
  new Date(text).toLocaleString(lang, inUtc.value ? { timeZone: "UTC", timeZoneName: "short" } : {});

/** The time of day, of what has just happened. */
export const clock = (text: string): string =>
  new Date(text).toLocaleTimeString(lang, inUtc.value ? { timeZone: "UTC" } : {});

/** How long ago, or in how long. */
export function ago(text: string | null): string {
  if (!text) return "–";
  const past = (Date.now() - Date.parse(text)) / 1000;
  return past >= 0 ? t("ago", { time: seconds(past) }) : t("inTime", { time: seconds(-past) });
}

/** The last line of a traceback. */
export const lastLine = (text: unknown): string => show(typeof text === "string" ? text.trim().split("\n").pop() : text, 200);

/** A name that can be pasted into a shell as it is. */
export const isShellSafe = (text: unknown): text is string => typeof text === "string" && /^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,200}$/.test(text);
