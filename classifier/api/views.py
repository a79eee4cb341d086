"""The API's door: the same services and the same reads as the pages, in JSON."""

from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotAuthenticated
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from accounts.roles import Verb
from classifier import services
from classifier.api.serializers import CaseSerializer, CellImageSerializer, UploadedImageSerializer, UploadSerializer
from classifier.errors import UploadRejected
from classifier.models import Case, CellImage


def acting(request: HttpRequest | Request) -> User:
    """The user behind the request: MayDoVerb let nobody else in."""
    user = request.user
    if not isinstance(user, User):
        raise NotAuthenticated
    return user


class CaseList(ListAPIView[Case]):
    """The laboratory's cases, the newest first; POST opens one."""

    serializer_class = CaseSerializer
    queryset = Case.objects.all()
    verb = Verb.UPLOAD

    def get_queryset(self) -> QuerySet[Case]:
        return Case.objects.visible_to(acting(self.request))

    @extend_schema(request=CaseSerializer, responses={201: CaseSerializer})
    def post(self, request: Request) -> Response:
        """Open a case; without an accession number one is generated."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        case = services.open_case(actor=acting(request), **serializer.validated_data)
        body = self.get_serializer(case).data
        return Response(body, status=201, headers={"Location": body["url"]})


class CaseDetail(RetrieveAPIView[Case]):
    serializer_class = CaseSerializer
    queryset = Case.objects.all()
    lookup_url_kwarg = "case_id"

    def get_queryset(self) -> QuerySet[Case]:
        return Case.objects.visible_to(acting(self.request))


class CaseImages(ListAPIView[CellImage]):
    """The images of a case, the newest first; POST uploads one."""

    serializer_class = CellImageSerializer
    queryset = CellImage.objects.all()
    parser_classes = (MultiPartParser,)
    verb = Verb.UPLOAD

    def get_case(self) -> Case:
        return get_object_or_404(Case.objects.visible_to(acting(self.request)), pk=self.kwargs["case_id"])

    def get_queryset(self) -> QuerySet[CellImage]:
        return CellImage.objects.visible_to(acting(self.request)).with_predictions().filter(case=self.get_case())

    @extend_schema(
        request={"multipart/form-data": UploadSerializer},
        responses={202: UploadedImageSerializer, 200: UploadedImageSerializer},
    )
    def post(self, request: Request, case_id: UUID) -> Response:
        """Upload one picture (field `file`): 202 and where to ask; 200 where the case has the same picture already."""
        case = self.get_case()
        image, created = services.add_image(actor=acting(request), case=case, upload=the_file(request))
        body = UploadedImageSerializer(image, context=self.get_serializer_context()).data
        return Response(body, status=202 if created else 200, headers={"Location": body["url"]})


def the_file(request: Request) -> UploadedFile:
    """The one file of the request. Raises UploadRejected: no_file, one_file_a_request."""
    files: list[UploadedFile] = request.FILES.getlist("file")
    if not files:
        raise UploadRejected("no_file", "Send the picture as multipart/form-data in the field `file`.")
    if len(files) > 1:
        raise UploadRejected("one_file_a_request", "Send one file in each request.")
    return files[0]


class ImageDetail(RetrieveAPIView[CellImage]):
    """One image: its status, and its prediction or failure once there is one."""

    serializer_class = CellImageSerializer
    queryset = CellImage.objects.all()
    lookup_url_kwarg = "image_id"

    def get_queryset(self) -> QuerySet[CellImage]:
        return CellImage.objects.visible_to(acting(self.request)).with_predictions()


class ImageRequeue(APIView):
    """Queue an image again: a failed one, or one that the active model has not classified yet."""

    verb = Verb.UPLOAD

    @extend_schema(request=None, responses={202: CellImageSerializer})
    def post(self, request: Request, image_id: UUID) -> Response:
        image = get_object_or_404(CellImage.objects.visible_to(acting(request)).with_predictions(), pk=image_id)
        services.requeue_image(actor=acting(request), image=image)
        return Response(CellImageSerializer(image, context={"request": request}).data, status=202)
