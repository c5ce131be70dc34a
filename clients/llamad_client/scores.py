"""How likely texts are behind a prompt, put together from the messages of a Score call."""

from dataclasses import dataclass, field

from llamad_api.v1 import llamad_pb2 as pb
from llamad_client.values import TokenLogprob, value_of


@dataclass(slots=True)
class Score:
    """One continuation. logprob: natural logarithm of its probability, the sum of its tokens'."""

    tokens: list[TokenLogprob] = field(default_factory=list)
    logprob: float = 0.0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    model: str = ""


class Scores:
    """The scores of a call, by the number of the continuation."""

    def __init__(self, count: int) -> None:
        self.all = [Score() for _ in range(count)]

    def add(self, response: pb.ScoreResponse) -> None:
        """Take the next message."""
        score = self.all[response.index]
        if response.HasField("token"):
            score.tokens.append(value_of(TokenLogprob, response.token))
        elif response.HasField("scored"):
            score.logprob = response.scored.logprob
            score.prompt_tokens = response.scored.prompt_tokens
            score.cached_prompt_tokens = response.scored.cached_prompt_tokens
            score.model = response.scored.model
