// Questions before a change, and what has come of it.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { isChanged } from "./api";
import { Dialog } from "./components";
import { t } from "./i18n";
import { Store, useStore } from "./store";

/** What was done, and what takes it back. */
export interface Done {
  text: string;
  undo?: () => Promise<string>;
}

interface Question {
  title: string;
  text: string;
  yes: string;
  seconds?: number;   // Asked for as well.
  /** What would be done, as the server says. */
  preview?: () => Promise<{ text: string; nothing?: boolean }>;
  /** Does it and says what came of it. */
  act: (seconds: number) => Promise<string | Done>;
  /** Shows again what somebody else has changed meanwhile. */
  reload?: () => void;
}

const question = new Store<Question | null>(null);
const notice = new Store<Done | null>(null);

export const ask = (asked: Question): void => question.set(asked);
export const say = (done: string | Done): void => notice.set(typeof done === "string" ? { text: done } : done);
/** What was said belongs to the page where it was said. */
export const forgetNotice = (): void => notice.set(null);
export const busy = (): boolean => question.value !== null;

export const messageOf = (error: unknown): string => (isChanged(error) ? t("changedMeanwhile") : error instanceof Error ? error.message : String(error));

/** Does what needs no question, and says what came of it. */
export function act(what: () => Promise<string | Done>): void {
  what().then(say, (error: unknown) => say(t("notDone", { text: messageOf(error) })));
}

function Form({ asked }: { asked: Question }): JSX.Element {
  const [problem, setProblem] = useState("");
  const [works, setWorks] = useState(false);
  const [seconds, setSeconds] = useState(String(asked.seconds ?? 0));
  const [preview, setPreview] = useState<{ text: string; nothing?: boolean } | null>(null);
  const close = () => question.set(null);
  useEffect(() => {
    asked.preview?.().then(setPreview, (error: unknown) => setProblem(messageOf(error)));
  }, []);
  const submit = async (event: Event) => {
    event.preventDefault();
    setWorks(true);
    setProblem("");
    try {
      say(await asked.act(Number(seconds)));
      close();
    } catch (error) {
      setProblem(messageOf(error));
      setWorks(isChanged(error));   // It is another thing now.
      if (isChanged(error)) asked.reload?.();
    }
  };
  const waits = asked.preview !== undefined && preview === null;
  return <Dialog label={asked.title} onClose={close}>
    <form onSubmit={submit}>
      <h2>{asked.title}</h2>
      {asked.text !== "" && <p>{asked.text}</p>}
      {asked.preview && <p role="status"><b>{preview ? preview.text : problem === "" ? t("counting") : ""}</b></p>}
      {asked.seconds !== undefined && <p><label>{t("seconds")} <input type="number" min={0} max={31622400} step={1} required
        value={seconds} onInput={(event) => setSeconds(event.currentTarget.value)} /></label></p>}
      {problem !== "" && <p class="problem" role="alert">{problem}</p>}
      <p class="buttons"><button type="button" onClick={close}>{t("cancel")}</button> <button type="submit" class="main"
        disabled={works || waits || preview?.nothing === true}>{asked.yes}</button></p>
    </form>
  </Dialog>;
}

export function Questions({ children }: { children?: ComponentChildren }): JSX.Element {
  const asked = useStore(question);
  const said = useStore(notice);
  return <>
    <div id="notice" role="status">{said && <p><span>{said.text}</span> <span class="buttons">
      {said.undo && <button type="button" onClick={() => { const { undo } = said; notice.set(null); if (undo) act(undo); }}>{t("undo")}</button>}
      <button type="button" onClick={() => notice.set(null)}>{t("close")}</button></span></p>}{children}</div>
    {asked && <Form key={asked.title} asked={asked} />}
  </>;
}
