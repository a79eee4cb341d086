"""What the API answers, as types. Answers gain members with time: more may be in them than stands here.

Ids are UUIDs as text, times UTC in ISO 8601. Percent is 0-100 in differentials, fractions are 0-1 elsewhere.
"""

from typing import Any, Literal, TypedDict

CaseStatus = Literal["open", "in_review", "released", "amended", "corrected", "void"]
ImageStatus = Literal["queued", "claimed", "classified", "reviewed", "failed"]
BatchState = Literal["checking", "running", "paused", "cancelled", "finished"]
Verdict = Literal["CONFIRMED", "CORRECTED", "MANUAL", "UNUSABLE", "WITHDRAWN"]
AmendmentKind = Literal["amended", "corrected"]
ReportKind = Literal["released", "amended", "corrected"]
TrialState = Literal["waiting", "finished", "failed"]
Standing = Literal["current", "being_amended", "superseded", "entered_in_error"]


class Identified(TypedDict):
    """Whatever has an id."""

    id: str


class Person(Identified):
    """Somebody of the laboratory."""

    name: str
    role: str


class Voiding(TypedDict):
    """Why something was taken out of all that counts."""

    reason: str
    by: str
    at: str


class Failure(TypedDict):
    code: str
    message: str


class ModelReference(TypedDict):
    name: str
    version: str
    sha256: str


class FoundLeukocyte(TypedDict):
    """One white cell of a field; `box` is left, top, right, bottom in pixels."""

    box: list[int]
    label: str | None
    suggestion: str | None
    confidence: float
    reason: str | None
    reason_code: str | None


class Prediction(TypedDict):
    """What the model said. `label` is None when it abstains; `suggestion` is the most probable class even then."""

    label: str | None
    suggestion: str | None
    confidence: float
    probabilities: dict[str, float]
    conformal_set: list[str]
    abstained: bool
    reason: str | None
    reason_code: str
    ood_score: float | None
    box: list[int] | None
    leukocytes: list[FoundLeukocyte]
    model: ModelReference
    duration_ms: float
    created_at: str


class Review(Identified):
    """One verdict of one reader. `previous` is the review that counted before it."""

    verdict: Verdict
    final_label: str | None
    comment: str
    reader: str
    previous: str | None
    created_at: str


class UploadedImage(Identified):
    """The answer to an upload."""

    status: ImageStatus
    url: str


class Image(UploadedImage):
    """One picture, and how far it has come. `prediction`, `failure` and `review` are None until there is one."""

    case: str
    original_name: str
    width: int
    height: int
    uploaded_at: str
    classified_at: str | None
    prediction: Prediction | None
    failure: Failure | None
    review: Review | None
    batch: str | None
    void: Voiding | None


class Case(Identified):
    """A case as lists show it. `wbc_value` is the analyser's, in 10^9/L."""

    accession_number: str
    patient_pseudonym: str
    specimen: str
    collected_at: str | None
    wbc_value: float | None
    wbc_source: str
    status: CaseStatus
    opened_at: str
    assigned_to: Person | None
    url: str


class ImageCounts(TypedDict):
    """How many images of a case are in which state; void ones are counted as `void` alone."""

    total: int
    queued: int
    claimed: int
    classified: int
    reviewed: int
    failed: int
    void: int


class ReportReference(Identified):
    version: int
    standing: Standing
    url: str


class CaseDetail(Case):
    """A case with what its images and reports come to."""

    opened_by: Person
    images: ImageCounts
    report: ReportReference | None
    void: Voiding | None


class Absolute(TypedDict):
    """In 10^9/L: the share times the analyser's WBC."""

    value: float
    low: float
    high: float


class CellShare(TypedDict):
    """A leukocyte type; percent and its exact 95 % limits are None while no leukocyte is counted."""

    label: str
    n: int
    reviewed: int
    pre_classified: int
    percent: float | None
    low: float | None
    high: float | None
    range_low: float | None
    range_high: float | None
    flag: Literal["H", "L"] | None
    absolute: Absolute | None


class OutsideCount(TypedDict):
    """What is counted beside the leukocytes."""

    label: str
    n: int
    per_100_wbc: float | None


class Blocker(TypedDict):
    """Why a case can't be released yet."""

    code: str
    count: int
    message: str


class Differential(TypedDict):
    """The share of each leukocyte type among the `n` leukocytes counted."""

    n: int
    basis: Literal["reviewed", "pre_classified", "mixed"]
    cells: list[CellShare]
    outside: list[OutsideCount]
    blocked_by: list[Blocker]
    reviewed: int
    pre_classified: int
    unidentified: int
    unusable: int
    target_count: int
    settings_version: int
    wbc: float | None


class SignedReport(Identified):
    """The answer to a release."""

    version: int
    sha256: str
    kind: ReportKind


class ReportVersion(SignedReport):
    """One version; `standing` is what it is worth now."""

    case: str
    standing: Standing
    reason: str
    signed_by: str
    signed_at: str
    url: str


class Report(ReportVersion):
    """A version with its signed content. The pseudonym is the one that the case has now: it is no part of it."""

    patient_pseudonym: str
    payload: dict[str, Any]


class Amendment(Identified):
    """The case is open again; `report` stays in force until the next is signed."""

    case: str
    report: str
    kind: AmendmentKind
    reason: str
    at: str


class ListedTrial(Identified):
    """A model version tried on a case; `failure` says why a trial came to nothing."""

    case: str
    model_version: str
    model: ModelReference
    state: TrialState
    failure: Failure | None
    requested_at: str
    finished_at: str | None
    url: str


class LabelPair(TypedDict):
    """`n` images that count as `before` and would count as `after`; None for unidentified."""

    before: str | None
    after: str | None
    n: int


class TrialOutcome(TypedDict):
    """What would be different; the last three are about images that people have reviewed with a class."""

    compared: int
    changed: int
    became_another: int
    became_unidentified: int
    became_identified: int
    pairs: list[LabelPair]
    reviewed: int
    right_before: int
    right_after: int


class Trial(ListedTrial):
    """A trial with how far it is; `outcome` is None until it is finished."""

    total: int
    tried: int
    unusable: int
    outcome: TrialOutcome | None


class Notification(Identified):
    """What happened to which case; `read_at` is None while it is unread."""

    kind: str
    case: str
    report: str | None
    at: str
    read_at: str | None


class SubmittedBatch(Identified):
    """The answer to a submission."""

    state: BatchState
    url: str


class ListedBatch(SubmittedBatch):
    """How far a batch is. `classified` includes reviewed; `total` = queued + classified + failed + void."""

    case: str
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    waits_for_start: bool
    files: int | None
    files_checked: int
    total: int
    queued: int
    classified: int
    failed: int
    void: int
    duplicates: int
    images_per_second: float | None
    seconds_left: int | None


class RefusedFile(Failure):
    """A file that became no image; `file` is its path in the archive, empty for the archive as a whole."""

    file: str


class Batch(ListedBatch):
    """With every file that was refused; `validation` is None unless the batch came with a labels.csv."""

    refused: list[RefusedFile]
    validation: dict[str, Any] | None
