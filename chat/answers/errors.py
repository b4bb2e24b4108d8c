"""Why the language model gave no complete answer."""

from retrieval.service_errors import ServiceError


class CompletionError(Exception):
    """The model gave no complete answer. ``code`` and the message are shown to the user."""

    code = "llm_error"


class CompletionTimeout(CompletionError):
    """No token within LLM_TIMEOUT seconds of the request or of the token before."""

    code = "llm_timeout"


class LLMNotConfigured(CompletionError):
    """No language model is configured; no call was made."""

    code = "llm_not_configured"


class ModelRefused(CompletionError):
    """The model's server answered with an error status."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(f"The language model refused: {error.reason}.")
        self.error = error


class PromptTooLong(ModelRefused):
    """The prompt is longer than the model's window."""
