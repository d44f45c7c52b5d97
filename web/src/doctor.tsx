import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get } from "./api";
import { messageOf } from "./ask";
import { Command, JobLink, Time } from "./components";
import { useHas } from "./features";
import { number, show } from "./format";
import { lang, t } from "./i18n";
import { useData } from "./live";
import type { Doctor, Finding } from "./types";

const levels: Record<string, string> = { error: "error", warning: "warning", info: "info" };

function Found({ finding }: { finding: Finding }): JSX.Element {
  const said = lang === "ru" ? "en" : undefined;   // The server's sentences are English.
  return <li class={levels[finding.severity] ?? "info"}>
    <b>{finding.code}</b>: {number(finding.found)}. <span lang={said}>{show(finding.what, 300)}: {show(finding.why, 300)}.</span>
    <small class="line plain">{finding.repair ? <>{t("mending")} <span lang={said}>{show(finding.repair, 200)}</span></> : t("notMended")}</small>
    {finding.examples.length > 0 && <small class="line plain">{t("examples")}: {finding.examples.slice(0, 5).map((one, i) => <>{i > 0 && ", "}
      {one.key.startsWith("rq:job:") ? <JobLink id={one.subject} size={60} /> : <code>{show(one.subject, 60)}</code>}{one.note !== "" && <> ({show(one.note, 100)})</>}</>)}</small>}
  </li>;
}

/** What an examination of all keys has found; begun only when somebody asks. */
export function DoctorSection(): JSX.Element | null {
  return useHas("/api/v1/doctor") ? <Section /> : null;
}

function Section(): JSX.Element {
  const { data, reload } = useData("doctor", () => get<{ doctor: Doctor }>("/api/v1/doctor"));
  const [problem, setProblem] = useState("");
  const doctor = data?.doctor;
  const begin = () => {
    setProblem("");
    get("/api/v1/doctor?max_age=10").then(reload, (error: unknown) => setProblem(messageOf(error)));
  };
  const report = doctor?.report;
  const runs = doctor?.state === "running";
  return <section>
    <div class="head"><h2>{t("doctor")}</h2><button type="button" disabled={!doctor || runs} onClick={begin}>{t(report ? "examineAgain" : "examine")}</button></div>
    {problem !== "" && <p class="problem" role="alert">{problem}</p>}
    {runs && doctor && <p class="note" role="status">{t("examining")} <span lang="en">{show(doctor.step, 60)}</span> <progress aria-label={t("progress")} {...(doctor.total > 0 ? { max: doctor.total, value: doctor.done } : {})} /></p>}
    {doctor?.state === "failed" && <p class="problem" role="alert">{t("notDone", { text: show(doctor.error, 300) })}</p>}
    {doctor?.state === "none" && <p class="note">{t("examineText")}</p>}
    {report && <>
      <p class="note">{t("examined", { jobs: number(report.jobs), keys: number(report.keys) })} {doctor?.ended_at && <Time at={doctor.ended_at} />} {report.healthy && t("healthy")}</p>
      {report.findings.length > 0 && <ul class="alerts">{report.findings.map((one) => <Found key={one.code} finding={one} />)}</ul>}
      {report.command && <p>{t("mendText")} <Command text={report.command} /></p>}
    </>}
  </section>;
}
