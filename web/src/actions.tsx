// What can be done to jobs, one or many, and how far it has got.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, path, post, remove, useSeesAll } from "./api";
import { ask, say, type Done } from "./ask";
import { number, show } from "./format";
import { t, type Key } from "./i18n";
import { useTopic } from "./live";
import { Store, useStore } from "./store";
import type { Operation } from "./types";

export type Verb = "requeue" | "cancel" | "stop" | "delete";
const names: Record<Verb, Key> = { requeue: "requeue", cancel: "cancelJob", stop: "stopJob", delete: "deleteJob" };
export const verbText = (verb: Verb): string => t(names[verb]);

interface Result {
  job_id: string;
  code: string;
  status?: string;
  dependents?: number;
}

const one = (verb: Verb, id: string): Promise<{ result: Result }> =>
  verb === "delete" ? remove(path`/api/v1/jobs/${id}`) : post(path`/api/v1/jobs/${id}/` + verb);

/** What can be done to a job in this status. */
export function verbsFor(status: unknown): Verb[] {
  if (status === "started") return ["stop", "cancel"];
  if (status === "failed" || status === "stopped" || status === "canceled") return ["requeue", "delete"];
  if (status === "finished") return ["delete"];
  return ["cancel", "delete"];
}

/** Asks; what was waiting in its queue and is canceled can be put back. */
export function changeJob(verb: Verb, id: string, then: () => void): void {
  const name = show(id, 60);
  const does = async (): Promise<Done> => {
    const { result } = await one(verb, id);
    then();
    if (verb !== "cancel") return { text: t(verb === "requeue" ? "didRequeue" : verb === "stop" ? "didStop" : "didDeleteJob", { name }) };
    const text = t("didCancel", { name });
    // Any other would not be back where it was: it would run now, not at its time or behind what it waits for.
    if (result.status !== "queued") return { text };
    return {
      text,
      undo: async () => {
        await one("requeue", id);
        then();
        return t("didRequeue", { name });
      },
    };
  };
  ask({ title: t("jobTitle", { verb: verbText(verb), name }), text: t(verb === "requeue" ? "requeueText" : verb === "cancel" ? "cancelText" : verb === "stop" ? "stopText" : "deleteJobText"),
    yes: verbText(verb), act: does });
}

/** Of which jobs: these, or all that fit. */
export type Selection = { ids: string[] } | { filter: Record<string, unknown> };

interface BulkAnswer {
  results?: Result[];
  matched?: number;
  exact?: boolean;
  operation_id?: string;
}

export function changeJobs(verb: Verb, selection: Selection, then: () => void): void {
  const body = { action: verb, ...selection };
  ask({
    title: t("bulkTitle", { verb: verbText(verb) }), text: t(verb === "requeue" ? "requeueText" : verb === "cancel" ? "cancelText" : verb === "stop" ? "stopText" : "deleteJobText"),
    yes: verbText(verb),
    preview: async () => {
      const answer = await post<BulkAnswer>("/api/v1/jobs/bulk", { ...body, dry_run: true });
      const n = answer.matched ?? answer.results?.filter((result) => result.code === "done").length ?? 0;
      const refused = answer.results ? answer.results.length - n : 0;
      return { text: t(answer.exact === false ? "bulkAtLeast" : "bulkCount", { n }) + (refused > 0 ? ` ${t("bulkRefused", { n: refused })}` : ""), nothing: n === 0 };
    },
    act: async () => {
      const answer = await post<BulkAnswer>("/api/v1/jobs/bulk", body);
      then();
      if (answer.operation_id !== undefined) {
        watch(answer.operation_id);
        return t("bulkBegun");
      }
      return t("bulkDone", { n: answer.results?.filter((result) => result.code === "done").length ?? 0 });
    },
  });
}

const watched = new Store<string[]>([]);   // Operations whose progress is shown.

export const watch = (operation: string): void => watched.set([...watched.value, operation]);

function Progress({ id }: { id: string }): JSX.Element | null {
  const [operation, setOperation] = useState<Operation | null>(null);
  const heard = useRef(0);
  const take = (now: Operation) => {
    if (!watched.value.includes(id)) return;
    setOperation(now);
    if (now.state === "running") return;
    watched.set(watched.value.filter((other) => other !== id));
    say(t(now.state === "done" ? "operationDone" : "operationEnded", {
      n: now.done, refused: number(now.refused), state: show(now.state, 20), text: show(now.error, 200) }));
  };
  useTopic<{ operations: Operation[] }>(useSeesAll() ? "operations" : "", (data) => {
    const mine = data.operations.find((one) => one.id === id);
    if (mine === undefined) return;
    heard.current = Date.now();
    take(mine);
  });
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let ended = false;
    const look = async () => {
      // The stream tells of it; where it does not, we ask.
      if (Date.now() - heard.current > 3000) {
        try {
          const answer = await get<{ operation: Operation }>(path`/api/v1/operations/${id}`);
          if (!ended) take(answer.operation);
        } catch (error) {
          if (error instanceof ApiError && (error.status === 403 || error.status === 404)) {
            watched.set(watched.value.filter((other) => other !== id));
            return;
          }
          // The next question may be answered.
        }
      }
      if (!ended) timer = setTimeout(look, 1000);
    };
    void look();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, [id]);
  const total = operation?.total ?? 0;
  return <p><span>{t("working")} <progress aria-label={t("progress")} {...(total > 0 ? { max: total, value: operation?.looked_at ?? 0 } : {})} /> {number(operation?.done ?? 0)}
    {total > 0 && ` / ${number(total)}`}</span>
    <button type="button" onClick={() => void post(path`/api/v1/operations/${id}/cancel`).catch(() => {})}>{t("cancel")}</button></p>;
}

export function Operations(): JSX.Element {
  const ids = useStore(watched);
  return <>{ids.map((id) => <Progress key={id} id={id} />)}</>;
}
