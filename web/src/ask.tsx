// Questions before a change, and what has come of it.

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Dialog } from "./components";
import { t } from "./i18n";
import { Store, useStore } from "./store";

interface Question {
  title: string;
  text: string;
  yes: string;
  seconds?: number;   // Asked for as well.
  /** Does it and says what came of it. */
  act: (seconds: number) => Promise<string>;
}

const question = new Store<Question | null>(null);
const notice = new Store("");

export const ask = (asked: Question): void => question.set(asked);
/** What was said belongs to the page where it was said. */
export const forgetNotice = (): void => notice.set("");
export const busy = (): boolean => question.value !== null;

function Form({ asked }: { asked: Question }): JSX.Element {
  const [problem, setProblem] = useState("");
  const [works, setWorks] = useState(false);
  const [seconds, setSeconds] = useState(String(asked.seconds ?? 0));
  const close = () => question.set(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    setWorks(true);
    try {
      notice.set(await asked.act(Number(seconds)));
      close();
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
      setWorks(false);
    }
  };
  return <Dialog label={asked.title} onClose={close}>
    <form onSubmit={submit}>
      <h2>{asked.title}</h2>
      <p>{asked.text}</p>
      {asked.seconds !== undefined && <p><label>{t("seconds")} <input type="number" min={0} max={31622400} step={1} required
        value={seconds} onInput={(event) => setSeconds(event.currentTarget.value)} /></label></p>}
      {problem !== "" && <p class="problem" role="alert">{problem}</p>}
      <p class="buttons"><button type="button" onClick={close}>{t("cancel")}</button> <button type="submit" class="main" disabled={works}>{asked.yes}</button></p>
    </form>
  </Dialog>;
}

export function Questions(): JSX.Element {
  const asked = useStore(question);
  const said = useStore(notice);
  return <>
    <div id="notice" role="status">{said !== "" && <p>{said} <button type="button" onClick={() => notice.set("")}>{t("close")}</button></p>}</div>
    {asked && <Form asked={asked} />}
  </>;
}
