"""The API's door to cases and images: the same services and the same reads as the pages, in JSON."""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.http import FileResponse, Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotAuthenticated
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from accounts.roles import Verb
from classifier import services
from classifier.api.etags import etag_of, require_match, tagged, unchanged
from classifier.api.filters import AnyImageFilter, CaseFilter, ImageFilter, ListFilter, cases_by, images_by, newest
from classifier.api.serializers import (
    AccessionNumberSerializer,
    AssignmentSerializer,
    CaseDetailSerializer,
    CaseSerializer,
    CellImageSerializer,
    ChangedCaseSerializer,
    FoundCasesSerializer,
    NewCaseSerializer,
    PersonSerializer,
    ReasonSerializer,
    UploadedImageSerializer,
    UploadSerializer,
    VoidingSerializer,
    uploaded_image,
)
from classifier.errors import InvalidInput, UploadRejected
from classifier.models import Case, CellImage, Prediction
from classifier.querysets import CaseQuerySet, CellImageQuerySet
from classifier.retention import require_kept
from classifier.services.viewing import ORIGINAL, record_case_view, record_image_view
from classifier.uploads import accept_upload
from classifier.visible_case import visible_case
from classifier.worklist import people_who_review

MOST_FOUND = 25
TYPES = {"jpg": "image/jpeg", "png": "image/png"}


def acting(request: HttpRequest | Request) -> User:
    """The user behind the request: MayDoVerb let nobody else in."""
    user = request.user
    if not isinstance(user, User):
        raise NotAuthenticated
    return user


def read(kind: type[serializers.Serializer[Any]], request: Request, **options: Any) -> dict[str, Any]:
    """The fields of the body. Raises ValidationError, and InvalidInput (unknown_field, invalid_input)."""
    if not isinstance(request.data, Mapping):
        raise InvalidInput("invalid_input", "Send one JSON object, whose members are the fields.")
    body = kind(data=request.data, **options)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


# --- Cases -----------------------------------------------------------------------------------------------------


def cases_of(request: Request) -> CaseQuerySet:
    return Case.objects.visible_to(acting(request)).select_related("assigned_to", "opened_by", "void__by")


def case_answer(request: Request, case_id: UUID) -> Response:
    """The case as it is now."""
    return answer_of(request, get_object_or_404(cases_of(request), pk=case_id))


def answer_of(request: Request, case: Case) -> Response:
    body = CaseDetailSerializer(case, context={"request": request}).data
    return tagged(body, etag_of(request, body))


class CaseList(ListAPIView[Case]):
    """The laboratory's cases, the newest first; POST opens one."""

    serializer_class = CaseSerializer
    queryset = Case.objects.all()
    verb = Verb.UPLOAD

    def get_queryset(self) -> QuerySet[Case]:
        return cases_by(acting(self.request), CaseFilter.of(self.request)).select_related("assigned_to")

    @extend_schema(parameters=[CaseFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    @extend_schema(request=NewCaseSerializer, responses={201: CaseSerializer})
    def post(self, request: Request) -> Response:
        """Open a case; without an accession number one is generated."""
        case = services.open_case(actor=acting(request), **read(NewCaseSerializer, request))
        body = self.get_serializer(case).data
        return Response(body, status=201, headers={"Location": str(body["url"])})


class CaseSearch(APIView):
    """Search by accession number, which is patient text and so never part of an address."""

    verb = Verb.SEE

    @extend_schema(request=AccessionNumberSerializer, responses={200: FoundCasesSerializer})
    def post(self, request: Request) -> Response:
        """The case with exactly this accession number, in any letter case; void ones too."""
        number = read(AccessionNumberSerializer, request)["accession_number"]
        found = cases_of(request).numbered(number).order_by("-opened_at", "-id")[:MOST_FOUND]
        results = CaseSerializer(found, many=True, context={"request": request}).data
        return Response({"next": None, "previous": None, "results": results})


class CaseDetail(APIView):
    """One case: what is known of the specimen, and what its images and reports come to."""

    verb = Verb.UPLOAD
    tagged = True

    @extend_schema(responses={200: CaseDetailSerializer})
    def get(self, request: Request, case_id: UUID) -> HttpResponseBase:
        case = get_object_or_404(cases_of(request), pk=case_id)
        answer = answer_of(request, case)
        if known := unchanged(request, answer["ETag"]):
            return known
        if request.method == "GET":
            record_case_view(actor=acting(request), case=case, page="api-case")
        return answer

    @extend_schema(request=ChangedCaseSerializer, responses={200: CaseDetailSerializer})
    def patch(self, request: Request, case_id: UUID) -> Response:
        """Change what is known of the specimen, of a case that is not signed. If-Match guards against others."""
        case = get_object_or_404(cases_of(request), pk=case_id)
        with transaction.atomic():
            # Compared and changed under one lock, so that of two who have seen the same case one is told.
            Case.objects.select_for_update(no_key=True).get(pk=case.pk)
            require_match(request, case_answer(request, case_id)["ETag"])
            services.change_case(actor=acting(request), case=case, **read(ChangedCaseSerializer, request, partial=True))
        return case_answer(request, case_id)


class CaseAssignment(APIView):
    """Give a case to somebody who reviews."""

    verb = Verb.UPLOAD

    @extend_schema(request=AssignmentSerializer, responses={200: CaseDetailSerializer})
    def post(self, request: Request, case_id: UUID) -> Response:
        """Give the case to a reader or technologist of the laboratory, who is notified; null: to nobody."""
        case = get_object_or_404(cases_of(request), pk=case_id)
        wanted = read(AssignmentSerializer, request)["reader"]
        people = {person.pk: person for person in people_who_review(case.laboratory_id)} if wanted else {}
        if wanted and wanted not in people:
            message = "Nobody of this laboratory who reviews has that id; /api/v1/reviewers/ lists those who do."
            raise InvalidInput("not_assignable", message)
        services.assign_case(actor=acting(request), case=case, reader=people.get(wanted))
        return case_answer(request, case_id)


class CaseVoid(APIView):
    """Take a case that was entered in error out of everything that counts."""

    verb = Verb.RELEASE

    @extend_schema(request=ReasonSerializer, responses={201: VoidingSerializer})
    def post(self, request: Request, case_id: UUID) -> Response:
        """Void the case, for ever: it and its reports stay readable, marked as entered in error."""
        case = get_object_or_404(cases_of(request), pk=case_id)
        void = services.void_case(actor=acting(request), case=case, **read(ReasonSerializer, request))
        return Response(VoidingSerializer(void).data, status=201)


class ReviewerList(APIView):
    """Who a case can be given to."""

    @extend_schema(parameters=[], responses={200: PersonSerializer(many=True)})
    def get(self, request: Request) -> Response:
        """Everybody of the laboratory who reviews and is active."""
        people = [person for person in people_who_review(acting(request).laboratory_id) if person.is_active]
        return Response(PersonSerializer(people, many=True).data)


# --- Images ----------------------------------------------------------------------------------------------------


def images_of(request: Request) -> CellImageQuerySet:
    """With all that is answered of an image; heat maps, the heaviest part of a prediction, stay where they are."""
    predictions = Prediction.objects.select_related("model_version").defer("heat_map", "model_version__metrics")
    return (
        CellImage.objects.visible_to(acting(request))
        .select_related("case", "uploaded_by", "current_review__reader", "void__by")
        .prefetch_related(Prefetch("predictions", predictions))
    )


class ImageList(ListAPIView[CellImage]):
    """The laboratory's images, the newest first."""

    serializer_class = CellImageSerializer
    queryset = CellImage.objects.all()
    filter_class: ClassVar[type[ListFilter]] = AnyImageFilter

    def get_queryset(self) -> QuerySet[CellImage]:
        laboratory_id = acting(self.request).laboratory_id
        return images_by(images_of(self.request), self.filter_class.of(self.request), laboratory_id)

    @extend_schema(parameters=[AnyImageFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class CaseImages(ImageList):
    """The images of a case, the newest first; POST uploads one."""

    parser_classes = (MultiPartParser,)
    verb = Verb.UPLOAD
    filter_class = ImageFilter

    def get_case(self) -> Case:
        case = visible_case(acting(self.request), self.kwargs["case_id"])
        if case is None:
            raise Http404
        return case

    def get_queryset(self) -> QuerySet[CellImage]:
        return super().get_queryset().filter(case=self.get_case())

    @extend_schema(parameters=[ImageFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    def prepare(self, request: Request) -> None:
        """Judge the picture before a transaction is opened for an Idempotency-Key."""
        self.get_case()
        accept_upload(the_file(request))

    @extend_schema(
        request={"multipart/form-data": UploadSerializer},
        responses={202: UploadedImageSerializer, 200: UploadedImageSerializer},
    )
    def post(self, request: Request, case_id: UUID) -> Response:
        """Upload one picture (field `file`): 202 and where to ask; 200 where the case has the same picture already."""
        case = self.get_case()
        image, created = services.add_image(actor=acting(request), case=case, upload=the_file(request))
        body = uploaded_image(request, image)
        return Response(body, status=202 if created else 200, headers={"Location": body["url"]})


def the_file(request: Request) -> UploadedFile:
    """The one file of the request. Raises UploadRejected: no_file, one_file_a_request."""
    files: list[UploadedFile] = request.FILES.getlist("file")
    if not files:
        raise UploadRejected("no_file", "Send the picture as multipart/form-data in the field `file`.")
    if len(files) > 1:
        raise UploadRejected("one_file_a_request", "Send one file in each request.")
    return files[0]


# What an answer about an image depends on; all else of its row never changes.
IMAGE_STATE = (
    "status",
    "queued_at",
    "classified_at",
    "failure_code",
    "current_review_id",
    "current_review__reader__full_name",
    "current_review__reader__email",
    "void__id",
    "batch_id",
)


class ImageDetail(APIView):
    """One image: its status, and its prediction or failure once there is one."""

    tagged = True

    @extend_schema(responses={200: CellImageSerializer})
    def get(self, request: Request, image_id: UUID) -> HttpResponseBase:
        own = CellImage.objects.visible_to(acting(request)).filter(pk=image_id)
        state = own.values_list(*IMAGE_STATE, newest("pk")).first()
        if state is None:
            raise Http404
        etag = etag_of(request, *state)
        if answer := unchanged(request, etag):
            return answer
        image = get_object_or_404(images_of(request), pk=image_id)
        # Asking how far an image is shows nothing of it yet.
        if request.method == "GET" and not image.is_waiting:
            record_image_view(actor=acting(request), image=image, page="api-image")
        return tagged(CellImageSerializer(image, context={"request": request}).data, etag)


class PictureRenderer(BaseRenderer):
    """Lets a client ask for a picture by Accept; the view hands out the stored file."""

    media_type = "image/*"
    format = "picture"


class ImageFile(APIView):
    """The stored picture of an image: a JPEG or a PNG."""

    renderer_classes = (PictureRenderer, JSONRenderer)

    @extend_schema(responses={(200, "image/jpeg"): OpenApiTypes.BINARY, (200, "image/png"): OpenApiTypes.BINARY})
    def get(self, request: Request, image_id: UUID) -> HttpResponseBase:
        images = CellImage.objects.visible_to(acting(request)).select_related("removed_picture")
        image = get_object_or_404(images, pk=image_id)
        require_kept(image)
        try:
            stored = image.file.open("rb")
        except FileNotFoundError as error:
            raise Http404 from error
        if request.method == "GET":
            record_image_view(actor=acting(request), image=image, page=ORIGINAL)
        extension = str(image.file.name).rsplit(".", 1)[-1]
        headers = {"Cache-Control": "no-store, private"}
        return FileResponse(stored, content_type=TYPES[extension], filename=f"{image.pk}.{extension}", headers=headers)


class ImageRequeue(APIView):
    """Queue an image again: a failed one, or one that the active model has not classified yet."""

    verb = Verb.UPLOAD

    @extend_schema(request=None, responses={202: CellImageSerializer})
    def post(self, request: Request, image_id: UUID) -> Response:
        image = get_object_or_404(images_of(request), pk=image_id)
        services.requeue_image(actor=acting(request), image=image)
        return Response(CellImageSerializer(image, context={"request": request}).data, status=202)


class ImageVoid(APIView):
    """Take one image, entered in error, out of everything that counts."""

    verb = Verb.RELEASE

    @extend_schema(request=ReasonSerializer, responses={201: VoidingSerializer})
    def post(self, request: Request, image_id: UUID) -> Response:
        """Void the image, for ever: it and its reviews stay readable, and it counts nowhere."""
        image = get_object_or_404(images_of(request), pk=image_id)
        void = services.void_image(actor=acting(request), image=image, **read(ReasonSerializer, request))
        return Response(VoidingSerializer(void).data, status=201)
