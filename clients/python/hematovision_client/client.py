"""The client: a method for what a program does with cases, images, reports and batches."""

import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, cast, overload
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from hematovision_client.answers import (
    Amendment,
    AmendmentKind,
    Batch,
    Case,
    CaseDetail,
    CaseStatus,
    Differential,
    Identified,
    Image,
    ImageStatus,
    ListedBatch,
    ListedTrial,
    Notification,
    Person,
    Report,
    ReportVersion,
    Review,
    SignedReport,
    SubmittedBatch,
    Trial,
    UploadedImage,
    Verdict,
    Voiding,
)
from hematovision_client.connection import Connection, json_of, retry_after
from hematovision_client.downloads import NewFile
from hematovision_client.multipart import PIECE, FileForm
from hematovision_client.problem import Problem
from hematovision_client.uploading import Meter, ProgressCallback, Upload, size_if_any, stops_the_rest

LONGEST_WAIT = 30

# An id, or an answer that has one.
Ref = str | UUID | Identified
AnyPath = str | os.PathLike[str]


class Client:
    """HematoVision over its API. Every method raises Problem, and ValueError for an id that is none.

    `timeout` is how many seconds the server may be silent; `tries` how often a request is sent that met no answer,
    429 or 503; a server that asks for more patience than `longest_pause` seconds ends the tries at once. TLS is
    checked against the system's authorities unless `context` says otherwise; plain http is for loopback addresses
    alone unless `allow_http`. One client may serve several threads; each has a connection of its own.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        timeout: float = 60,
        *,
        tries: int = 5,
        longest_pause: float = 60,
        context: ssl.SSLContext | None = None,
        allow_http: bool = False,
    ) -> None:
        self._connection = Connection(
            base_url,
            token,
            timeout=timeout,
            tries=tries,
            longest_pause=longest_pause,
            context=context,
            allow_http=allow_http,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection of this thread."""
        self._connection.close()

    # --- Cases -------------------------------------------------------------------------------------------------

    def open_case(
        self,
        accession_number: str | None = None,
        *,
        patient_pseudonym: str | None = None,
        specimen: str | None = None,
        collected_at: str | None = None,
        wbc_value: float | None = None,
        wbc_source: str | None = None,
    ) -> Case:
        """A new case; without an accession number one is generated. `wbc_value` is in 10^9/L."""
        fields = {
            "accession_number": accession_number,
            "patient_pseudonym": patient_pseudonym,
            "specimen": specimen,
            "collected_at": collected_at,
            "wbc_value": wbc_value,
            "wbc_source": wbc_source,
        }
        return cast(Case, self._post("/cases/", given(fields)))

    def case(self, case: Ref) -> CaseDetail:
        return cast(CaseDetail, self._get(f"/cases/{id_of(case)}/"))

    def cases(
        self,
        *,
        status: CaseStatus | None = None,
        opened_from: str | None = None,
        opened_to: str | None = None,
        assigned: str | None = None,
        page_size: int | None = None,
    ) -> Iterator[Case]:
        """The laboratory's cases, the newest first; a page is asked for when it is needed. Days are YYYY-MM-DD."""
        fields = {
            "status": status,
            "opened_from": opened_from,
            "opened_to": opened_to,
            "assigned": assigned,
            "page_size": page_size,
        }
        return cast(Iterator[Case], self._pages("/cases/", given(fields)))

    def find_cases(self, accession_number: str) -> list[Case]:
        """The cases with exactly this accession number, in any letter case; it never stands in an address."""
        found = self._post("/cases/search/", {"accession_number": accession_number})
        return cast(list[Case], found["results"])

    def change_case(self, case: Ref, **fields: str | float | None) -> CaseDetail:
        """Change what is known of the specimen: the fields of `open_case`, but for the accession number."""
        path = f"/cases/{id_of(case)}/"
        return cast(CaseDetail, self._connection.request("PATCH", path, json_of, body=fields))

    def reviewers(self) -> list[Person]:
        """Who a case can be given to."""
        return cast(list[Person], self._get("/reviewers/"))

    def assign(self, case: Ref, reader: Ref | None) -> CaseDetail:
        """Give the case to somebody who reviews; None takes it back."""
        body = {"reader": None if reader is None else id_of(reader)}
        return cast(CaseDetail, self._post(f"/cases/{id_of(case)}/assign/", body))

    def void_case(self, case: Ref, reason: str) -> Voiding:
        return cast(Voiding, self._post(f"/cases/{id_of(case)}/void/", {"reason": reason}))

    def differential(self, case: Ref) -> Differential:
        """The differential as it stands, and what blocks its release."""
        return cast(Differential, self._get(f"/cases/{id_of(case)}/differential/"))

    # --- Images ------------------------------------------------------------------------------------------------

    def images(
        self,
        case: Ref | None = None,
        *,
        status: ImageStatus | None = None,
        label: str | None = None,
        abstained: bool | None = None,
        batch: Ref | None = None,
        page_size: int | None = None,
    ) -> Iterator[Image]:
        """The images of a case, of a batch or of the laboratory, the newest first; pages come when needed."""
        fields = {
            "case": None if case is None else id_of(case),
            "batch": None if batch is None else id_of(batch),
            "status": status,
            "label": label,
            "abstained": None if abstained is None else str(abstained).lower(),
            "page_size": page_size,
        }
        return cast(Iterator[Image], self._pages("/images/", given(fields)))

    def image(self, image: Ref) -> Image:
        return cast(Image, self._get(f"/images/{id_of(image)}/"))

    def upload_image(self, case: Ref, path: AnyPath) -> UploadedImage:
        """Upload one picture. The same picture again in the same case is the same image."""
        return self._upload(id_of(case), Path(path))[0]

    def upload_images(
        self, case: Ref, paths: Iterable[AnyPath], progress: ProgressCallback | None = None
    ) -> list[Upload]:
        """Upload files one after the other, and say what became of each, in their order. Raises no Problem.

        A refused file stops no other. `progress` is called after each file.
        """
        case_id, files = id_of(case), [Path(path) for path in paths]
        sizes = [size_if_any(path) for path in files]
        meter, bytes_done = Meter(len(files), sum(sizes)), 0
        outcomes: list[Upload] = []
        stopped: Problem | None = None
        for path, size in zip(files, sizes, strict=True):
            if stopped is not None:
                outcomes.append(Upload(path, problem=stopped, sent=False))
                continue
            try:
                image, duplicate = self._upload(case_id, path)
                outcomes.append(Upload(path, image, duplicate=duplicate))
            except Problem as problem:
                outcomes.append(Upload(path, problem=problem))
                stopped = problem if stops_the_rest(problem) else None
            bytes_done += size
            if progress:
                progress(meter.at(len(outcomes), bytes_done))
        return outcomes

    def _upload(self, case_id: str, path: Path) -> tuple[UploadedImage, bool]:
        def uploaded(answer: HTTPResponse) -> tuple[UploadedImage, bool]:
            return cast(UploadedImage, json_of(answer)), answer.status == 200

        return self._connection.request("POST", f"/cases/{case_id}/images/", uploaded, body=FileForm("file", path))

    def requeue(self, image: Ref) -> Image:
        """Queue an image again: a failed one, or one that the active model has not classified yet."""
        return cast(Image, self._post(f"/images/{id_of(image)}/requeue/"))

    def void_image(self, image: Ref, reason: str) -> Voiding:
        return cast(Voiding, self._post(f"/images/{id_of(image)}/void/", {"reason": reason}))

    def reviews(self, image: Ref) -> Iterator[Review]:
        """What was said about an image, the newest first."""
        return cast(Iterator[Review], self._pages(f"/images/{id_of(image)}/reviews/"))

    def review(
        self,
        image: Ref,
        verdict: Verdict,
        final_label: str | None = None,
        *,
        comment: str | None = None,
        previous_review: Ref | EllipsisType | None = ...,
    ) -> Review:
        """Say what a cell is. `final_label` goes with CORRECTED and MANUAL.

        Give the review that you have seen as `previous_review`, None for none: where a colleague was faster this
        raises Problem (review_changed), with the other's review in `document`. Left out, nothing is compared.
        """
        body = given({"verdict": verdict, "final_label": final_label, "comment": comment})
        if not isinstance(previous_review, EllipsisType):
            body["previous_review"] = None if previous_review is None else id_of(previous_review)
        return cast(Review, self._post(f"/images/{id_of(image)}/reviews/", body))

    # --- Reports -----------------------------------------------------------------------------------------------

    def release(
        self, case: Ref, password: str, *, reason: str | None = None, comment: str | None = None
    ) -> SignedReport:
        """Sign the case as it stands, with the signer's own password; below the target count with a reason."""
        body = given({"password": password, "reason": reason, "comment": comment})
        return cast(SignedReport, self._post(f"/cases/{id_of(case)}/reports/", body))

    def amend(self, case: Ref, kind: AmendmentKind, reason: str) -> Amendment:
        """Open a signed case again; `corrected` where a released result was wrong."""
        return cast(Amendment, self._post(f"/cases/{id_of(case)}/amendments/", {"kind": kind, "reason": reason}))

    def reports(self, case: Ref) -> Iterator[ReportVersion]:
        """The versions of a case's report, the newest first."""
        return cast(Iterator[ReportVersion], self._pages(f"/cases/{id_of(case)}/reports/"))

    def report(self, report: Ref) -> Report:
        return cast(Report, self._get(f"/reports/{id_of(report)}/"))

    def download_pdf(self, report: Ref, path: AnyPath) -> Path:
        return self._download(f"/reports/{id_of(report)}/pdf/", path, "application/pdf")

    def download_fhir(self, report: Ref, path: AnyPath) -> Path:
        """An HL7 FHIR R4 Bundle."""
        return self._download(f"/reports/{id_of(report)}/fhir/", path, "application/fhir+json")

    def download_csv(self, report: Ref, path: AnyPath) -> Path:
        """A row a cell type."""
        return self._download(f"/reports/{id_of(report)}/csv/", path, "text/csv")

    # --- Trials and notifications ------------------------------------------------------------------------------

    def try_model(self, case: Ref, model_version: Ref) -> Trial:
        """Try a version that is not active on a case; it changes nothing that counts. One that waits is that one."""
        return cast(Trial, self._post(f"/cases/{id_of(case)}/trials/", {"model_version": id_of(model_version)}))

    def trial(self, trial: Ref) -> Trial:
        """How far a trial is; `outcome` is None until it is finished."""
        return cast(Trial, self._get(f"/trials/{id_of(trial)}/"))

    def trials(self, case: Ref) -> Iterator[ListedTrial]:
        """The trials of a case, the newest first."""
        return cast(Iterator[ListedTrial], self._pages(f"/cases/{id_of(case)}/trials/"))

    def notifications(self, *, unread: bool | None = None) -> Iterator[Notification]:
        """One's own notifications, the newest first."""
        query = given({"unread": None if unread is None else str(unread).lower()})
        return cast(Iterator[Notification], self._pages("/notifications/", query))

    def mark_read(self, notification: Ref) -> Notification:
        return cast(Notification, self._post(f"/notifications/{id_of(notification)}/read/"))

    # --- Batches -----------------------------------------------------------------------------------------------

    def submit_batch(
        self, archive: AnyPath, accession_number: str | None = None, progress: ProgressCallback | None = None
    ) -> SubmittedBatch:
        """Hand in a ZIP of pictures for one case; it is sent from the disk as it is read, and starts by itself.

        `progress` is called for each piece that is sent; after a broken connection it starts again from nothing.
        """
        path = Path(archive)
        meter = Meter(1, size_if_any(path))

        def sent(count: int) -> None:
            if progress:
                progress(meter.at(int(count >= meter.bytes_total), count))

        fields = {} if accession_number is None else {"accession_number": accession_number}
        form = FileForm("archive", path, fields, sent)
        return cast(SubmittedBatch, self._connection.request("POST", "/batches/", json_of, body=form))

    def batches(self, case: Ref | None = None) -> Iterator[ListedBatch]:
        """The batches of a case, or of the laboratory, the newest first."""
        query = {} if case is None else {"case": id_of(case)}
        return cast(Iterator[ListedBatch], self._pages("/batches/", query))

    def batch(self, batch: Ref) -> Batch:
        return cast(Batch, self._get(f"/batches/{id_of(batch)}/"))

    def pause(self, batch: Ref) -> Batch:
        return cast(Batch, self._post(f"/batches/{id_of(batch)}/pause/"))

    def resume(self, batch: Ref) -> Batch:
        return cast(Batch, self._post(f"/batches/{id_of(batch)}/resume/"))

    def cancel(self, batch: Ref) -> Batch:
        """Give a batch up: what is classified stays, what waits becomes void."""
        return cast(Batch, self._post(f"/batches/{id_of(batch)}/cancel/"))

    def retry_failed(self, batch: Ref) -> Batch:
        return cast(Batch, self._post(f"/batches/{id_of(batch)}/retry-failed/"))

    def download_results(self, batch: Ref, path: AnyPath) -> Path:
        """A line a file, as CSV."""
        return self._download(f"/batches/{id_of(batch)}/results.csv", path, "text/csv")

    # --- Waiting -----------------------------------------------------------------------------------------------

    @overload
    def wait_for(self, waited_for: UploadedImage, timeout: float = ...) -> Image: ...

    @overload
    def wait_for(self, waited_for: SubmittedBatch, timeout: float = ...) -> Batch: ...

    def wait_for(self, waited_for: UploadedImage | SubmittedBatch, timeout: float = 300) -> Image | Batch:
        """The image once it is classified or failed, or the batch once nothing is under way in it (a paused one too).

        Raises Problem (not_finished) after `timeout` seconds.
        """
        if "state" in waited_for:
            return cast(Batch, self._waited(f"/batches/{id_of(waited_for)}/", batch_waits, timeout))
        return cast(Image, self._waited(f"/images/{id_of(waited_for)}/", image_waits, timeout))

    # --- The ways to ask ---------------------------------------------------------------------------------------

    def _get(self, path: str) -> Any:
        return self._connection.request("GET", path, json_of)

    def _post(self, path: str, body: Mapping[str, object] | None = None) -> Any:
        return self._connection.request("POST", path, json_of, body=body)

    def _pages(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[Any]:
        while True:
            page = self._connection.request("GET", path, json_of, query=query)
            yield from page["results"]
            if page["next"] is None:
                return
            # Only its query is followed: the token goes nowhere but to this instance.
            query = dict(parse_qsl(urlsplit(page["next"]).query))

    def _waited(self, path: str, waits: Callable[[Any], bool], timeout: float) -> Any:
        end = time.monotonic() + timeout
        while True:
            seconds = max(0, min(LONGEST_WAIT, int(end - time.monotonic())))
            patience = max(self._connection.timeout, seconds + 15)
            answer, pause = self._connection.request(
                "GET", path, lambda got: (json_of(got), retry_after(got)), query={"wait": seconds}, timeout=patience
            )
            if not waits(answer):
                return answer
            left = end - time.monotonic()
            if left <= 0:
                raise Problem(0, "not_finished", f"It was not finished after {timeout:g} seconds. Ask again later.")
            # Less than a second can't be waited for at the server's.
            time.sleep(min(left, pause if pause is not None else 0.0 if left >= 1 else left))

    def _download(self, address: str, path: AnyPath, kind: str) -> Path:
        """The file under its name only once it is whole, and readable for its owner alone. Problem (not_written)."""
        target = Path(path)

        def stored(answer: HTTPResponse) -> Path:
            with NewFile(target) as file:
                while piece := answer.read(PIECE):
                    file.write(piece)
            return target

        return self._connection.request("GET", address, stored, accept=f"{kind}, application/json")


def id_of(ref: Ref) -> str:
    """The id as text. Raises ValueError for all else: an accession number must not come into an address."""
    try:
        return str(UUID(str(ref["id"] if isinstance(ref, Mapping) else ref)))
    except ValueError:
        raise ValueError("This needs an id, which is a UUID, or an answer that has one.") from None


def given(fields: Mapping[str, object | None]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def image_waits(image: Image) -> bool:
    return image["status"] in ("queued", "claimed")


def batch_waits(batch: Batch) -> bool:
    return batch["state"] in ("checking", "running") and not batch["waits_for_start"]
