"""Reports over the API: sign, amend, read a version, and take it away as PDF, FHIR or CSV."""

from typing import Any, ClassVar
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from accounts.roles import Verb
from classifier.api.etags import etag_of, tagged, unchanged
from classifier.api.serializers import KnownFields
from classifier.api.views import acting, read
from classifier.models import AmendmentKind, Case, Report, ReportKind
from classifier.querysets import visible_to
from classifier.reports.exports import exported, fhir_json
from classifier.reports.forms import COMMENT_LENGTH
from classifier.reports.standing import Standing
from classifier.reports.versions import ReportVersion, version_of, versions_of
from classifier.services.reports import (
    amend_report,
    export_draft,
    record_export,
    record_view,
    release_report,
    require_whole,
)


class ReleaseSerializer(KnownFields):
    password = serializers.CharField(
        write_only=True, trim_whitespace=False, max_length=4096, help_text="The signer's own password, once more."
    )
    reason = serializers.CharField(
        required=False, allow_blank=True, max_length=500, help_text="Needed below the laboratory's target count."
    )
    comment = serializers.CharField(required=False, allow_blank=True, max_length=COMMENT_LENGTH)


class SignedReportSerializer(serializers.ModelSerializer[Report]):
    """The answer to a release."""

    class Meta:
        model = Report
        fields = ("id", "version", "sha256", "kind")


class ReportVersionSerializer(serializers.Serializer[Any]):
    """One version. `standing` is what it is worth now: it changes after the signature, so `payload` has it not."""

    id = serializers.UUIDField(source="report.id")
    case = serializers.UUIDField(source="report.case_id")
    version = serializers.IntegerField(source="report.version")
    kind = serializers.ChoiceField(ReportKind.choices, source="report.kind")
    standing = serializers.ChoiceField([choice for choice in Standing.choices if choice[0] != Standing.DRAFT])
    sha256 = serializers.CharField(source="report.sha256")
    reason = serializers.CharField(source="report.reason")
    signed_by: serializers.StringRelatedField[Any] = serializers.StringRelatedField(source="report.signed_by")
    signed_at = serializers.DateTimeField(source="report.signed_at")
    url = serializers.SerializerMethodField()

    @extend_schema_field(serializers.URLField())
    def get_url(self, version: ReportVersion) -> str:
        return str(self.context["request"].build_absolute_uri(reverse("api-report", args=[version.report.pk])))


class ReportVersionsSerializer(serializers.Serializer[Any]):
    """All versions at once, the newest first: `next` and `previous` are always null."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = ReportVersionSerializer(many=True)


class ReportSerializer(ReportVersionSerializer):
    patient_pseudonym = serializers.CharField(
        source="report.case.patient_pseudonym",
        help_text="The one that the case has now: it is no part of the signed content, so that it can be erased.",
    )
    payload = serializers.JSONField(source="report.payload", help_text="The signed content: docs/reports.md.")


class AmendSerializer(KnownFields):
    kind = serializers.ChoiceField(AmendmentKind.choices, help_text="`corrected` where a released result was wrong.")
    reason = serializers.CharField(max_length=500)


class AmendmentSerializer(serializers.Serializer[Any]):
    """The answer to an amendment: the case is open again, and the report stays in force until the next is signed."""

    id = serializers.UUIDField()
    case = serializers.UUIDField(source="case_id")
    report = serializers.UUIDField(source="report_id")
    kind = serializers.ChoiceField(AmendmentKind.choices)
    reason = serializers.CharField()
    at = serializers.DateTimeField()


def visible_case(request: Request, case_id: UUID) -> Case:
    return get_object_or_404(Case.objects.visible_to(acting(request)).select_related("laboratory"), pk=case_id)


def visible_version(user: User, report_id: UUID) -> ReportVersion:
    reports = Report.objects.filter(visible_to(user, "case__laboratory")).select_related("case", "signed_by")
    return version_of(get_object_or_404(reports, pk=report_id))


class CaseReports(APIView):
    """The versions of a case's report; POST signs the next one."""

    verb = Verb.RELEASE

    @extend_schema(responses={200: ReportVersionsSerializer})
    def get(self, request: Request, case_id: UUID) -> Response:
        versions = versions_of(visible_case(request, case_id))
        body = ReportVersionSerializer(versions, many=True, context={"request": request}).data
        return Response({"next": None, "previous": None, "results": body})

    @extend_schema(request=ReleaseSerializer, responses={201: SignedReportSerializer})
    def post(self, request: Request, case_id: UUID) -> Response:
        """Sign the case as it stands. Needs the signer's password; a service account never signs."""
        case = visible_case(request, case_id)
        report = release_report(actor=acting(request), case=case, **read(ReleaseSerializer, request))
        location = request.build_absolute_uri(reverse("api-report", args=[report.pk]))
        return Response(SignedReportSerializer(report).data, status=201, headers={"Location": location})


class CaseAmendments(APIView):
    """Open a signed case again, to amend or to correct its report."""

    verb = Verb.RELEASE

    @extend_schema(request=AmendSerializer, responses={201: AmendmentSerializer})
    def post(self, request: Request, case_id: UUID) -> Response:
        case = visible_case(request, case_id)
        amendment = amend_report(actor=acting(request), case=case, **read(AmendSerializer, request))
        return Response(AmendmentSerializer(amendment).data, status=201)


class ReportDetail(APIView):
    """One version of a report, with its signed content."""

    tagged = True

    @extend_schema(responses={200: ReportSerializer})
    def get(self, request: Request, report_id: UUID) -> HttpResponseBase:
        user = acting(request)
        version = visible_version(user, report_id)
        require_whole(version.report)
        report = version.report
        # What was signed never changes; what it is worth, and how its signer is called, may.
        etag = etag_of(request, report.sha256, version.standing, str(report.signed_by))
        if answer := unchanged(request, etag):
            # Nothing of the report is handed out, so nobody is noted to have read it again.
            return answer
        record_view(actor=user, report=report)
        return tagged(ReportSerializer(version, context={"request": request}).data, etag)


class PdfRenderer(BaseRenderer):
    """Lets a client ask for the type by Accept; the view hands out the finished file."""

    media_type = "application/pdf"
    format = "pdf"


class FhirRenderer(PdfRenderer):
    media_type = "application/fhir+json"
    format = "fhir"


class CsvRenderer(PdfRenderer):
    media_type = "text/csv"
    format = "csv"


class ReportFile(APIView):
    """A version as a file; each time is in the audit trail."""

    kind: ClassVar[str]

    def get(self, request: Request, report_id: UUID) -> HttpResponse:
        user = acting(request)
        version = visible_version(user, report_id)
        record_export(actor=user, report=version.report, kind=self.kind)
        file = exported(version.report, version.standing, self.kind)
        headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "no-store"}
        return HttpResponse(file.content, content_type=file.content_type, headers=headers)


@extend_schema(responses={(200, "application/pdf"): OpenApiTypes.BINARY})
class ReportPdf(ReportFile):
    """A version as PDF."""

    kind = "pdf"
    renderer_classes = (PdfRenderer, JSONRenderer)


@extend_schema(responses={(200, "application/fhir+json"): OpenApiTypes.OBJECT})
class ReportFhir(ReportFile):
    """A version as an HL7 FHIR R4 Bundle."""

    kind = "fhir"
    renderer_classes = (FhirRenderer, JSONRenderer)


class CaseDraftFhir(APIView):
    """A case that nobody has signed as an HL7 FHIR R4 Bundle: its DiagnosticReport is `partial`."""

    renderer_classes = (FhirRenderer, JSONRenderer)

    @extend_schema(responses={(200, "application/fhir+json"): OpenApiTypes.OBJECT})
    def get(self, request: Request, case_id: UUID) -> HttpResponse:
        payload = export_draft(actor=acting(request), case=visible_case(request, case_id), kind="fhir")
        content = fhir_json(payload, Standing.DRAFT)
        return HttpResponse(content, content_type=FhirRenderer.media_type, headers={"Cache-Control": "no-store"})


@extend_schema(responses={(200, "text/csv"): OpenApiTypes.STR})
class ReportCsv(ReportFile):
    """The differential of a version as CSV, a row a cell type."""

    kind = "csv"
    renderer_classes = (CsvRenderer, JSONRenderer)


@extend_schema(responses={(200, "text/csv"): OpenApiTypes.STR})
class ReportCells(ReportCsv):
    """The images behind a version as CSV, a row an image."""

    kind = "cells"
