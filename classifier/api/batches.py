"""The API's door to batches."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from accounts.models import User
from accounts.roles import Verb
from classifier import services
from classifier.api.filters import ListFilter
from classifier.api.serializers import FailureSerializer
from classifier.api.views import acting
from classifier.batches import RESULT_COLUMNS, BatchProgress, progress_of, refusals_of, result_rows
from classifier.csv_stream import streamed
from classifier.errors import UploadRejected
from classifier.models import Batch, BatchState
from classifier.validation_report import validation_of


class RefusedFileSerializer(FailureSerializer):
    """A file that became no image. `file` is its path in the archive, empty for the archive as a whole."""

    file = serializers.CharField()


class SubmittedBatchSerializer(serializers.Serializer[Any]):
    """The answer to a submission: where to ask how far it is."""

    id = serializers.UUIDField()
    state = serializers.ChoiceField(BatchState.choices)
    url = serializers.URLField()


class ListedBatchSerializer(SubmittedBatchSerializer):
    """How far a batch is. `classified` includes reviewed; `total` = queued + classified + failed + void."""

    case = serializers.UUIDField()
    submitted_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    waits_for_start = serializers.BooleanField(
        help_text="Checked; POST to start/ starts it. For batches of the page, and where the case was closed."
    )
    files = serializers.IntegerField(allow_null=True, help_text="Entries of the archive; null until it is read.")
    files_checked = serializers.IntegerField()
    total = serializers.IntegerField()
    queued = serializers.IntegerField()
    classified = serializers.IntegerField()
    failed = serializers.IntegerField()
    void = serializers.IntegerField()
    duplicates = serializers.IntegerField(help_text="Files with the same picture as another one; not counted again.")
    images_per_second = serializers.FloatField(allow_null=True)
    seconds_left = serializers.IntegerField(allow_null=True)


class BatchSerializer(ListedBatchSerializer):
    """With every file that was refused, and why; `validation` is null unless the batch came with a labels.csv."""

    refused = RefusedFileSerializer(many=True)
    validation = serializers.DictField(allow_null=True)


class BatchFilter(ListFilter):
    case = serializers.UUIDField(required=False)


class SubmitBatchSerializer(serializers.Serializer[Any]):
    archive = serializers.FileField(help_text="A ZIP archive of pictures; a labels.csv (file,label) may lie in it.")
    accession_number = serializers.CharField(max_length=64, required=False, allow_blank=True)


def visible(user: User) -> QuerySet[Batch]:
    return Batch.objects.visible_to(user).select_related("case", "submitted_by")


def listed(batch: Batch, progress: BatchProgress, request: Request) -> dict[str, Any]:
    return {
        "id": batch.pk,
        "state": batch.state,
        "url": reverse("api-batch", args=[batch.pk], request=request),
        "case": batch.case_id,
        "submitted_at": batch.submitted_at,
        "started_at": batch.started_at,
        "finished_at": batch.finished_at,
        "waits_for_start": batch.waits_for_start,
        "files": batch.members_total,
        "files_checked": batch.members_checked,
        "total": progress.total,
        "queued": progress.queued,
        "classified": progress.classified,
        "failed": progress.failed,
        "void": progress.void,
        "duplicates": progress.duplicates,
        "images_per_second": progress.images_per_second,
        "seconds_left": progress.seconds_left,
    }


def detailed(batch: Batch, request: Request) -> dict[str, Any]:
    validation = validation_of(batch)
    return {
        **BatchSerializer(
            {
                **listed(batch, progress_of([batch])[batch.pk], request),
                "refused": refusals_of(batch),
                "validation": validation.as_json() if validation else None,
            }
        ).data
    }


class BatchList(ListAPIView[Batch]):
    """The laboratory's batches, the newest first; POST hands one in."""

    serializer_class = ListedBatchSerializer
    queryset = Batch.objects.all()
    parser_classes = (MultiPartParser,)
    verb = Verb.UPLOAD

    def get_queryset(self) -> QuerySet[Batch]:
        wanted = BatchFilter.of(self.request)
        batches = visible(acting(self.request))
        return batches.filter(case=wanted["case"]) if "case" in wanted else batches

    @extend_schema(parameters=[BatchFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.get_queryset()) or []
        progress = progress_of(page)
        rows = [listed(batch, progress[batch.pk], request) for batch in page]
        return self.get_paginated_response(ListedBatchSerializer(rows, many=True).data)

    @extend_schema(
        request={"multipart/form-data": SubmitBatchSerializer},
        responses={202: SubmittedBatchSerializer},
    )
    def post(self, request: Request) -> Response:
        """Hand in a ZIP archive (field `archive`): 202 and where to ask. It is checked, and then starts by itself."""
        given: list[UploadedFile] = request.FILES.getlist("archive")
        if len(given) > 1:
            raise UploadRejected("one_file_a_request", "Send one archive in each request.")
        batch = services.submit_archive(
            actor=acting(request),
            archive=given[0] if given else None,
            accession_number=request.POST.get("accession_number", ""),
        )
        url = reverse("api-batch", args=[batch.pk], request=request)
        body = SubmittedBatchSerializer({"id": batch.pk, "state": batch.state, "url": url}).data
        return Response(body, status=202, headers={"Location": url})


class BatchDetail(APIView):
    """How far a batch is, what was refused, and, with a labels.csv, how well the model did."""

    @extend_schema(responses=BatchSerializer)
    def get(self, request: Request, batch_id: UUID) -> Response:
        batch = get_object_or_404(visible(acting(request)), pk=batch_id)
        return Response(detailed(batch, request))


class BatchAct(APIView):
    """Something that is done to a batch; answers with how it stands afterwards."""

    verb = Verb.UPLOAD
    service: Callable[..., Batch]

    @extend_schema(request=None, responses={200: BatchSerializer})
    def post(self, request: Request, batch_id: UUID) -> Response:
        user = acting(request)
        batch = get_object_or_404(visible(user), pk=batch_id)
        type(self).service(actor=user, batch=batch)
        return Response(detailed(get_object_or_404(visible(user), pk=batch_id), request))


class BatchStart(BatchAct):
    """Start a batch that was handed in on the page and is checked."""

    service = staticmethod(services.start_batch)


class BatchPause(BatchAct):
    """Hold what is not classified yet."""

    service = staticmethod(services.pause_batch)


class BatchResume(BatchAct):
    """Go on with a paused batch."""

    service = staticmethod(services.resume_batch)


class BatchCancel(BatchAct):
    """Give a batch up: what is classified stays, what waits becomes void."""

    service = staticmethod(services.cancel_batch)


class BatchRetryFailed(BatchAct):
    """Queue the failed images of a batch again."""

    service = staticmethod(services.retry_failed)


class BatchResults(APIView):
    """A line a file, in the order in which they were sent, as CSV."""

    @extend_schema(responses={(200, "text/csv"): OpenApiTypes.STR})
    def get(self, request: Request, batch_id: UUID) -> StreamingHttpResponse:
        user = acting(request)
        batch = get_object_or_404(visible(user), pk=batch_id)
        services.record_batch_export(actor=user, batch=batch, kind="results")
        answer = StreamingHttpResponse(streamed(RESULT_COLUMNS, result_rows(batch)), content_type="text/csv")
        answer["Content-Disposition"] = f'attachment; filename="batch-{batch.pk}-results.csv"'
        answer["Cache-Control"] = "no-store"
        return answer
