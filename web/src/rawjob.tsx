import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { get, path } from "./api";
import { Loading, Table, type Column } from "./components";
import { number, seconds } from "./format";
import { t } from "./i18n";
import { useData } from "./live";
import type { RawJob } from "./types";

type Field = RawJob["fields"][number];

const columns: Column<Field>[] = [
  { name: t("field"), kind: "name", cell: (field) => <code>{field.name}</code> },
  { name: t("bytes"), kind: "number", cell: (field) => number(field.size) },
  { name: t("value"), kind: "raw", cell: (field) => field.hidden ? t("hidden") : <code>{field.value}{field.cut && "…"}</code> },
];

function Fields({ id }: { id: string }): JSX.Element | null {
  const { data, missing } = useData(`raw ${id}`, () => get<{ raw: RawJob }>(path`/api/v1/jobs/${id}/raw`));
  if (missing) return null;
  if (data === null) return <Loading />;
  const { raw } = data;
  const rest = raw.fields_total - raw.fields.length;
  return <>
    <p class="note"><code>{raw.key}</code> ({raw.type}), {raw.ttl === null ? t("keptForever") : t("keptFor", { time: seconds(raw.ttl) })}. {t("escapedText")}</p>
    <Table label={t("rawJob")} columns={columns} rows={raw.fields} id={(field) => field.name} />
    {rest > 0 && <p class="note">{t("moreFields", { n: rest })}</p>}
  </>;
}

/** The hash as it is stored; asked for when somebody wants to see it. */
export function Raw({ id }: { id: string }): JSX.Element {
  const [open, setOpen] = useState(false);
  return <details class="add" onToggle={(event) => setOpen(event.currentTarget.open)}><summary>{t("rawJob")}</summary>{open && <Fields id={id} />}</details>;
}
