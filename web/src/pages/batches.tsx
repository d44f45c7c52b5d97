import type { ComponentChildren, JSX } from "preact";
import { get, path, post, useMay } from "../api";
import { ask } from "../ask";
import { Commands, Empty, Facts, Filter, fits, Loading, Table, Time, type Column } from "../components";
import { number, seconds, show } from "../format";
import { t } from "../i18n";
import { useData } from "../live";
import { href, useRoute } from "../router";
import type { Batch } from "../types";

const link = (id: unknown): ComponentChildren =>
  typeof id === "string" && id !== "" ? <a href={href(["batches", id])} title={show(id, 200)}>{show(id, 24)}</a> : show(id, 24);

function Bar({ batch }: { batch: Batch }): JSX.Element {
  return <progress max={Math.max(batch.total, 1)} value={batch.done} aria-label={`${number(batch.done)} / ${number(batch.total)}`} />;
}

const columns: Column<Batch>[] = [
  { name: t("batch"), cell: (batch) => link(batch.id) },
  { name: t("state"), cell: (batch) => show(batch.state, 20) },
  { name: t("progress"), cell: (batch) => <><Bar batch={batch} /> {number(batch.done)} / {number(batch.total)}</> },
  { name: t("Failed"), kind: "number", cell: (batch) => number(batch.failed) },
  { name: t("rate"), kind: "number", cell: (batch) => number(batch.jobs_per_second) },
  { name: t("eta"), kind: "number", cell: (batch) => seconds(batch.eta) },
  { name: t("created"), cell: (batch) => <Time at={batch.created_at} /> },
];

export function BatchesPage(): JSX.Element {
  const { data, forbidden } = useData("batches", () => get<{ batches: Batch[] }>("/api/v1/batches?limit=100"));
  const wanted = useRoute().params.get("q") ?? "";
  if (data === null) return <Loading forbidden={forbidden} />;
  const batches = data.batches.filter((batch) => fits(wanted, batch.id, batch.state));
  return <>
    <div class="head"><h2>{t("batches")}</h2><Filter /></div>
    {batches.length > 0 ? <Table label={t("batches")} columns={columns} rows={batches} id={(batch) => batch.id} />
      : wanted !== "" ? <Empty text={t("noMatch")} /> : <Empty text={t("noBatches")} command="rqxx enqueue --batch jobs.ndjson" />}
  </>;
}

function cancel(batch: Batch, reload: () => void): void {
  const name = show(batch.id, 60);
  ask({
    title: t("cancelBatchTitle", { name }), text: t("cancelBatchText", { n: batch.pending }), yes: t("cancelBatch"),
    act: async () => {
      const { canceled } = await post<{ canceled: number }>(path`/api/v1/batches/${batch.id}/cancel`);
      reload();
      return t("didCancelBatch", { n: canceled });
    },
  });
}

function retry(batch: Batch, reload: () => void): void {
  const name = show(batch.id, 60);
  ask({
    title: t("retryBatchTitle", { name }), text: t("retryBatchText", { n: batch.failed + batch.stopped }), yes: t("retryBatch"),
    act: async () => {
      const { requeued } = await post<{ requeued: number }>(path`/api/v1/batches/${batch.id}/retry-failed`);
      reload();
      return t("didRetryBatch", { n: requeued });
    },
  });
}

export function BatchPage({ id }: { id: string }): JSX.Element {
  const { data, missing, reload, forbidden } = useData(`batch ${id}`, () => get<{ batch: Batch }>(path`/api/v1/batches/${id}`));
  const may = useMay("operate");
  const back = <a href={href(["batches"])}>← {t("batches")}</a>;
  if (missing) return <p class="empty">{t("noSuchBatch")}{back}</p>;
  if (data === null) return <Loading forbidden={forbidden} />;
  const { batch } = data;
  return <>
    <p class="path">{back}</p>
    <div class="head"><h2 class="id">{t("batch")} {show(batch.id, 200)}</h2>
      {may && <span class="buttons">
        {batch.state !== "complete" && <button type="button" onClick={() => cancel(batch, reload)}>{t("cancelBatch")}</button>}
        {batch.failed + batch.stopped > 0 && <button type="button" onClick={() => retry(batch, reload)}>{t("retryBatch")}</button>}
      </span>}</div>
    <Facts rows={[
      [t("state"), `${show(batch.state, 20)}${batch.successful ? `, ${t("successful")}` : ""}`],
      [t("progress"), <><Bar batch={batch} /> {number(batch.done)} / {number(batch.total)}</>],
      [t("pending"), number(batch.pending)], [t("Finished"), number(batch.finished)], [t("Failed"), number(batch.failed)],
      [t("Stopped"), number(batch.stopped)], [t("Canceled"), number(batch.canceled)], [t("deleted"), number(batch.deleted)],
      [t("rate"), number(batch.jobs_per_second)], [t("eta"), seconds(batch.eta)], [t("created"), <Time at={batch.created_at} />],
      [t("sealed"), <Time at={batch.sealed_at} />], [t("firstFailure"), <Time at={batch.first_failure_at} />], [t("completed"), <Time at={batch.completed_at} />],
      [t("inProgress"), show(batch.in_progress)], [t("parent"), link(batch.parent)],
      [t("children"), batch.children.total === 0 ? "–" : <>{number(batch.children.total)}: {batch.children.ids.slice(0, 50).map((child, i) => <>{i > 0 && ", "}{link(child)}</>)}</>],
      [t("onComplete"), show(batch.on_complete)], [t("onSuccess"), show(batch.on_success)], [t("onFailure"), show(batch.on_first_failure)],
    ]} />
    <Commands of={batch.id} verbs={["rqxx batch show"]} />
  </>;
}
