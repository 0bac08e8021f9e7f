"""ModelService: describes the models that are served."""

from collections.abc import Iterator

from grpc import ServicerContext

from sealserve.errors import PermissionDeniedError, StaleConfigError
from sealserve.protocol.wire import model_to_proto
from sealserve.v1 import model_pb2, model_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.rpc.servicers.pages import page
from sealserve_service.tenants.tenant import current_tenant

_PIECE_BYTES = 1 << 18


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """ModelService over a registry."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    def GetModel(self, request: model_pb2.GetModelRequest, context: ServicerContext) -> model_pb2.GetModelResponse:
        """Get one model, in the version that the request asks for if that is served."""
        served = self._models.get(request.model, current_tenant.get(), request.config_id)
        return model_pb2.GetModelResponse(model=model_to_proto(served.model))

    def GetInputSteps(
        self, request: model_pb2.GetInputStepsRequest, context: ServicerContext
    ) -> Iterator[model_pb2.GetInputStepsResponse]:
        """Stream the steps of a model, in pieces."""
        served = self._models.get(request.model, current_tenant.get(), request.config_id)
        if not request.steps_id or served.model.steps_id != request.steps_id:
            raise StaleConfigError(served.model.config_id)
        for start in range(0, len(served.steps), _PIECE_BYTES):
            yield model_pb2.GetInputStepsResponse(piece=served.steps[start : start + _PIECE_BYTES])

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: ServicerContext
    ) -> model_pb2.ListModelsResponse:
        """List a page of models; its token is the last name of the previous page."""
        tenant = current_tenant.get()
        if not tenant.may_list_models:
            raise PermissionDeniedError("list_models")
        models = (served.model for served in self._models.after(request.page_token, tenant))
        listed, token = page(models, request.page_size, lambda model: model.name)
        return model_pb2.ListModelsResponse(models=map(model_to_proto, listed), next_page_token=token)
