import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Dialog } from "./components";
import { show } from "./format";
import { t, type Key } from "./i18n";
import { paused, useOverview } from "./live";
import { go } from "./router";

interface Entry {
  kind: string;
  text: string;
  run: () => void;
}

const mostShown = 12;

/** Pages, queues, jobs and what can be done anywhere, by a few letters. */
export function Palette({ pages, onClose }: { pages: { name: Key; part: string }[]; onClose: () => void }): JSX.Element {
  const data = useOverview();
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);

  const entries: Entry[] = pages.map((page) => ({ kind: "", text: t(page.name), run: () => go(...(page.part ? [page.part] : [])) }));
  entries.push({ kind: "", text: t(paused.value ? "resume" : "pause"), run: () => paused.set(!paused.value) });
  for (const { queue_name: name } of data?.stats.queues ?? [])
    if (typeof name === "string") entries.push({ kind: t("queue"), text: show(name, 80), run: () => go("queues", name) });
  for (const job of data?.recent ?? []) {
    const { id } = job;
    if (typeof id === "string") entries.push({ kind: t("job"), text: `${show(id, 40)} ${show(job.description ?? job.func_name, 60)}`, run: () => go("jobs", id) });
  }
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const found = entries.filter((entry) => words.every((word) => `${entry.kind} ${entry.text}`.toLowerCase().includes(word))).slice(0, mostShown);
  const id = text.trim();
  if (/^\S{3,}$/.test(id)) found.push({ kind: "", text: t("openJob", { id: show(id, 60) }), run: () => go("jobs", id) });
  const at = Math.min(chosen, found.length - 1);

  const choose = (entry: Entry | undefined) => {
    if (!entry) return;
    onClose();
    entry.run();
  };
  const press = (event: KeyboardEvent) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step !== 0) {
      event.preventDefault();
      setChosen(found.length === 0 ? 0 : (at + step + found.length) % found.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      choose(found[at]);
    }
  };
  return <Dialog label={t("palette")} onClose={onClose} className="palette">
    <input type="text" role="combobox" autocomplete="off" spellcheck={false} maxLength={500} aria-label={t("palette")} aria-expanded="true" aria-controls="found"
      aria-activedescendant={at >= 0 ? `found${at}` : undefined} placeholder={t("paletteHint")} value={text} onKeyDown={press}
      onInput={(event) => { setText(event.currentTarget.value); setChosen(0); }} />
    <ul id="found" role="listbox" aria-label={t("palette")}>
      {found.map((entry, i) => <li key={i} id={`found${i}`} role="option" aria-selected={i === at} onClick={() => choose(entry)}>
        {entry.kind !== "" && <small>{entry.kind} </small>}{entry.text}</li>)}
    </ul>
    {found.length === 0 && <p class="note" role="status">{t("nothingFound")}</p>}
  </Dialog>;
}
