// What executions write: added piece by piece, not drawn anew, so that scrolling and selection stay.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, path } from "./api";
import { number, plain, show } from "./format";
import { t } from "./i18n";
import { useData } from "./live";
import type { OutputPart } from "./types";

const mostOutput = 2 << 20;                     // Characters shown of an execution.
const behindAll = "18446744073709551615-0";

function add(body: HTMLElement, entries: OutputPart["entries"]): number {
  const follows = body.scrollTop + body.clientHeight >= body.scrollHeight - 8;
  let size = 0;
  for (const entry of entries) {
    const last = body.lastElementChild;
    const text = entry.stream === "cut" ? t("missing", { n: number(entry.missing_bytes) }) : plain(entry.text ?? "");
    if (entry.stream !== "cut" && last?.className === entry.stream) {
      last.append(text);
    } else {
      const node = document.createElement("div");
      node.className = entry.stream;
      node.textContent = text;
      body.append(node);
    }
    size += text.length;
  }
  if (follows) body.scrollTop = body.scrollHeight;
  return size;
}

/** One execution's; `turn` changes when it is time to look for more. */
function Pane({ job, execution, first, turn }: { job: string; execution: string; first: boolean; turn: number }): JSX.Element {
  const body = useRef<HTMLDivElement>(null);
  const at = useRef({ after: "", size: 0, ended: false, loading: false });
  const [open, setOpen] = useState(first);
  const [ended, setEnded] = useState(false);

  const load = async () => {
    const place = at.current;
    if (place.loading || place.ended) return;
    place.loading = true;
    try {
      for (let more = true; more;) {
        const part = await get<OutputPart>(`${path`/api/v1/jobs/${job}/output`}?execution=${encodeURIComponent(execution)}&after=${place.after}`);
        if (!body.current) return;
        place.size += add(body.current, part.entries);
        place.after = part.next_after;
        place.ended = part.ended;
        if (!part.ended && place.size > mostOutput) {
          add(body.current, [{ stream: "stdout", text: `\n${t("cutOff")}\n` }]);
          place.ended = true;
        }
        more = !place.ended && part.entries.length > 0;
      }
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) place.ended = true;   // It has expired.
    } finally {
      place.loading = false;
      setEnded(place.ended);
    }
  };
  useEffect(() => {
    if (open) void load();
  }, [open, turn]);

  return <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
    <summary>{t("execution")} <code title={show(execution, 60)}>{show(execution, 12)}</code> <span class="state">{open && !ended ? t("runningNow") : ""}</span></summary>
    <div ref={body} class="output" tabIndex={0} role="log" aria-live="off" aria-label={t("outputOf", { id: show(execution, 60) })} />
  </details>;
}

export function Outputs({ id, ran }: { id: string; ran: boolean }): JSX.Element | null {
  const turn = useRef(0);
  // The turn makes each answer another one, so that panes look as often as this does.
  const { data } = useData(`output ${id}`, async () => {
    const part = await get<OutputPart>(`${path`/api/v1/jobs/${id}/output`}?limit=1&after=${behindAll}`);
    return { executions: part.executions, turn: ++turn.current };
  });
  const executions = data?.executions ?? [];
  if (!ran && executions.length === 0) return null;
  return <>
    <h2>{t("output")}</h2>
    {executions.length === 0 && <p class="empty">{t("noOutput")}</p>}
    {executions.map((execution, i) => <Pane key={execution} job={id} execution={execution} first={i === 0} turn={data?.turn ?? 0} />)}
  </>;
}
