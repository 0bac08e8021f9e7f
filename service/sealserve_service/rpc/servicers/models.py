"""ModelService: what is served."""

from grpc import ServicerContext

from sealserve.errors import (
    PermissionDeniedError,
    ServiceError,
)
from sealserve.protocol.wire import model_to_proto
from sealserve.v1 import (
    model_pb2,
    model_pb2_grpc,
)
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.rpc import status
from sealserve_service.scoring.item import as_service_error
from sealserve_service.tenants.authenticator import Authenticator

MAX_PAGE_SIZE = 100


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """ModelService over a registry."""

    def __init__(self, models: ModelRegistry, authenticator: Authenticator) -> None:
        self._models = models
        self._authenticator = authenticator

    def GetModel(self, request: model_pb2.GetModelRequest, context: ServicerContext) -> model_pb2.GetModelResponse:
        """Get one model."""
        try:
            served = self._models.get(request.model, self._authenticator.authenticate(context))
            return model_pb2.GetModelResponse(model=model_to_proto(served.model))
        except ServiceError as error:
            status.abort(context, as_service_error(error))

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: ServicerContext
    ) -> model_pb2.ListModelsResponse:
        """List a page of models; its token is the last name of the page before."""
        size = min(request.page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
        try:
            tenant = self._authenticator.authenticate(context)
            if not tenant.may_list_models:
                raise PermissionDeniedError("list_models")
        except ServiceError as error:
            status.abort(context, error)
        models = [served.model for served in self._models.after(request.page_token, tenant)]
        return model_pb2.ListModelsResponse(
            models=map(model_to_proto, models[:size]),
            next_page_token=models[size - 1].name if len(models) > size else "",
        )
