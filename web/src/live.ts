// Where data comes from: one stream of the overview, and of what else the page wants, where the server has it, else
// questions every two seconds.
// Both rest while the page is paused or hidden.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, get, place, tokenWanted } from "./api";
import { hasRoute } from "./features";
import { Store, useStore } from "./store";
import type { Job, Overview, Stats, Worker } from "./types";

const interval = 2000;
const silence = 5000;   // A stream that says nothing for so long is asked behind its back.

export const paused = new Store(false);
export const overview = new Store<Overview | null>(null);
/** When the last answer came (0: none yet), and what has gone wrong since. */
export const health = new Store<{ at: number; problem: string }>({ at: 0, problem: "" });

const hidden = new Store(document.hidden);
document.addEventListener("visibilitychange", () => hidden.set(document.hidden));
const rests = () => paused.value || hidden.value || tokenWanted.value !== "";

const fresh = () => health.set({ at: Date.now(), problem: "" });

function failed(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) return;   // The form asks for the token.
  const problem = error instanceof Error ? error.message : String(error);
  health.set({ at: health.value.at, problem });
}

/** Runs `turn` now (on a paused page, too: it has to show something) and `wait` ms after each end, but not while the page
 *  rests. Returns what ends it. */
function repeat(turn: () => Promise<void>, wait = interval): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let running = false;
  let ended = false;
  let ran = false;
  const round = async () => {
    clearTimeout(timer);
    if (running || ended || (rests() && (ran || hidden.value || tokenWanted.value !== ""))) return;
    running = true;
    ran = true;
    await turn().catch(failed);
    running = false;
    if (!ended && !rests()) timer = setTimeout(round, wait);
  };
  const ends = [paused, hidden, tokenWanted].map((store) => store.follow(round));
  void round();
  return () => {
    ended = true;
    clearTimeout(timer);
    for (const end of ends) end();
  };
}

// ---- the overview ----

let stream: EventSource | null = null;
let streamless = false;   // The server has given the stream up.
let heard = 0;
let settled = 0;   // Until then the stream may still tell what was before a change.
const ripe = 1500;

function take(stats: Stats, workers: { workers: Worker[] }, recent: { jobs: Job[] }): void {
  overview.set({ stats, workers: workers.workers, recent: recent.jobs });
  fresh();
}

async function ask(): Promise<void> {
  const [stats, workers, recent] = await Promise.all([
    get<Stats>("/api/rq/stats"), get<{ workers: Worker[] }>("/api/rq/workers"),
    get<{ jobs: Job[] }>("/api/rq/jobs/recent?limit=50")]);
  if (!paused.value || overview.value === null) take(stats, workers, recent);
}

// Who is somebody else now may have it.
tokenWanted.follow(() => {
  if (tokenWanted.value === "") streamless = false;
});

function closeStream(): void {
  stream?.close();
  stream = null;
}

// ---- the other topics ----

export type Topic = "jobs" | "operations" | "audit";
type Listener = (data: never) => void;
const listeners: Record<Topic, Set<Listener>> = { jobs: new Set(), operations: new Set(), audit: new Set() };
let told = "";              // The topics of the stream that is open.
let jobless = false;        // The server has no index, so it knows nothing of jobs' changes.

const topics = (): string => ["overview", ...(Object.keys(listeners) as Topic[])
  .filter((topic) => listeners[topic].size > 0 && !(jobless && topic === "jobs"))].join(",");
const wanted = (): boolean => overview.followed || Object.values(listeners).some((all) => all.size > 0);

/** Whether the stream tells of it just now. */
export const streams = (topic: Topic): boolean => stream !== null && Date.now() - heard < silence && told.split(",").includes(topic);

/** Has `take` called with what is told of the topic; no topic: nothing. Only for those who may hear of it. */
export function useTopic<T>(topic: Topic | "", take: (data: T) => void): void {
  const taker = useRef(take);
  taker.current = take;
  useEffect(() => {
    if (topic === "") return undefined;
    const listener: Listener = (data: T) => taker.current(data);
    listeners[topic].add(listener);
    setTimeout(feed, 0);   // With what else the page wants.
    return () => {
      listeners[topic].delete(listener);
      setTimeout(feed, 0);
    };
  }, [topic]);
}

async function openStream(): Promise<void> {
  if (streamless || !(await hasRoute("/api/v1/events")) || rests() || !wanted()) return;
  if (stream !== null && told === topics()) return;
  closeStream();
  told = topics();
  const source = new EventSource(place(`/api/v1/events?topics=${told}`));
  stream = source;
  const on = (name: string, take: (data: unknown) => void) => source.addEventListener(name, (event) => {
    if (stream !== source) return;
    heard = Date.now();
    take(JSON.parse((event as MessageEvent<string>).data));
  });
  on("overview", (data) => {
    if (heard < settled) return;
    const { stats, workers, recent } = data as { stats: Stats; workers: { workers: Worker[] }; recent: { jobs: Job[] } };
    take(stats, workers, recent);
  });
  on("unchanged", fresh);
  on("problem", (data) => failed(new Error((data as { detail: string }).detail)));
  for (const topic of Object.keys(listeners) as Topic[])
    on(topic, (data) => [...listeners[topic]].forEach((listener) => listener(data as never)));
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED || stream !== source) return;
    closeStream();
    if (told.includes("jobs")) {
      jobless = true;
      void openStream();
    } else {
      streamless = true;
    }
  });
}

let endFeed: (() => void) | null = null;
let endings: (() => void)[] = [];

/** Runs while anybody follows the overview, or a topic. */
function feed(): void {
  if (!wanted()) {
    endFeed?.();
    for (const end of endings) end();
    endFeed = null;
    endings = [];
    closeStream();
  } else if (endFeed === null) {
    heard = 0;
    endFeed = repeat(async () => {
      if (stream !== null && Date.now() - heard < silence) return;
      if (overview.followed) await ask();
      void openStream();
    });
    const rest = () => {
      if (rests()) closeStream();
      else heard = 0;
    };
    endings = [paused.follow(rest), hidden.follow(rest), tokenWanted.follow(rest)];
  } else if (stream !== null && told !== topics()) {
    void openStream();
  }
}

export function useOverview(): Overview | null {
  const value = useStore(overview);
  useEffect(() => {
    const end = overview.follow(() => {});
    feed();
    return () => {
      end();
      // The next page may follow it as well.
      setTimeout(feed, 0);
    };
  }, []);
  return value;
}

// ---- anything else ----

export interface Loaded<T> {
  data: T | null;
  missing: boolean;
  refused: string;   // Why it makes no sense, as the server says.
  forbidden: boolean;   // Who we are for the server must not see it.
  reload: () => void;
}

/** What `load` answers, again and again; `key` names it. */
export function useData<T>(key: string, load: () => Promise<T>, wait?: number): Loaded<T> {
  const [state, setState] = useState<{ key: string; data: T | null; missing: boolean; refused: string; forbidden: boolean; text: string }>(
    { key, data: null, missing: false, refused: "", forbidden: false, text: "" });
  const loader = useRef(load);
  loader.current = load;
  const turn = useRef<() => Promise<void>>();
  useEffect(() => {
    let ended = false;
    let text = "";
    turn.current = async () => {
      try {
        const data = await loader.current();
        if (ended) return;
        fresh();
        const now = JSON.stringify(data);
        if (now !== text) setState({ key, data, missing: false, refused: "", forbidden: false, text: now });   // The same is not drawn again.
        text = now;
      } catch (error) {
        if (ended) return;
        if (!(error instanceof ApiError) || ![403, 404, 422].includes(error.status)) throw error;
        fresh();
        text = "";
        setState({ key, data: null, missing: error.status === 404, refused: error.status === 422 ? error.message : "",
          forbidden: error.status === 403, text: "" });
      }
    };
    const end = repeat(turn.current, wait);
    return () => {
      ended = true;
      end();
    };
  }, [key]);
  const reload = () => void turn.current?.().catch(failed);
  return state.key === key ? { data: state.data, missing: state.missing, refused: state.refused, forbidden: state.forbidden, reload }
    : { data: null, missing: false, refused: "", forbidden: false, reload };
}

/** After a change: the overview is asked at once, and the stream's answers from before are passed over. */
export function askAgain(): void {
  settled = Date.now() + ripe;
  ask().catch(failed);
  setTimeout(() => ask().catch(failed), ripe + 100);   // For what was passed over.
}
