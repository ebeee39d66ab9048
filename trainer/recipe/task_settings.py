"""What a recipe may say of its task: a section for each of them."""

from collections.abc import Sequence
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from trainer.recipe.section import CountInt, Fraction, PositiveInt, Section


def template_fields(key: str, template: str, possible: Sequence[str] | None = None) -> list[str]:
    """Returns the names between the braces of a template, in their order.

    Raises ValueError, naming `key`, for a template that is none, names nothing, or something else
    than the `possible` names.
    """
    try:
        parts = [
            (name, spec, conversion)
            for _, name, spec, conversion in Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        raise ValueError(f"{key} is no template ({error}); write {{{{ for a brace") from error
    names = [name for name, _, _ in parts]
    shown = " or ".join(f"{{{name}}}" for name in possible or ())
    if not names:
        raise ValueError(f"{key} names no column; write one as {shown or '{instruction}'}")
    if any(not name or spec or conversion for name, spec, conversion in parts):
        raise ValueError(f"{key}: between braces stands the name of a column and no more")
    unknown = [name for name in names if possible is not None and name not in possible]
    if unknown:
        raise ValueError(f"{key}: there is no {{{unknown[0]}}} here; write {shown}")
    return names


def _separator(value: str | None) -> str | None:
    if value == "":
        raise ValueError("an empty text separates nothing; use null for that")
    return value


PairSeparator = Annotated[str, AfterValidator(_separator)] | None
"""auto, null or a text."""


class LabelWords(Section):
    """How the pretrained causal model is asked for a label before anything is learned."""

    prompt: str
    """Template over the roles of columns, such as "Review: {text}\\nSentiment:"."""
    answers: Annotated[tuple[str, ...], Field(min_length=2)]
    """What follows the prompt for each label, in the order of the labels, such as " negative"."""

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        template_fields("prompt", self.prompt, ("text", "text_pair"))
        if not all(answer.strip() for answer in self.answers):
            raise ValueError("answers: each label needs a word")
        if len(set(self.answers)) != len(self.answers):
            raise ValueError("answers must differ from each other")
        return self


def _label_text(value: Any) -> Any:
    """Returns a label as text: YAML has 1 and true without quotes."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("a label is a name, a whole number, or true or false; quote other numbers")
    if isinstance(value, float):
        value = int(value)
    return str(value) if isinstance(value, int) else value


Label = Annotated[str, BeforeValidator(_label_text)]


class Classification(Section):
    name: Literal["classification"]
    labels: Annotated[tuple[Label, ...], Field(min_length=2)] | None = None
    """Names in the order of their indices; null takes what the train split holds."""
    check_labels: bool = True
    """Without task.labels: refuse a label column of scores, of several labels a row, of more labels
    than half the rows or than 1,000, or of labels that differ only in case, spaces or form. false
    takes each value as a class."""
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Weight of each class in the loss; balanced is rows / (classes * rows of the class)."""
    label_smoothing: Fraction = 0.0
    pair_separator: PairSeparator = "auto"
    """What stands between the two texts of a pair if the tokenizer puts nothing there, as GPT-2's
    does: auto is the end token, or a line break without one; a text such as "\\n"; null is
    nothing."""
    zero_shot: LabelWords | None = None
    """Also measure what the pretrained causal model answers to a prompt, before training."""

    @model_validator(mode="after")
    def _one_of_each_for_each_label(self) -> Self:
        if self.labels is None:
            return self
        needed = len(self.labels)
        if len(set(self.labels)) != needed:
            raise ValueError("labels must differ from each other")
        if isinstance(self.class_weights, tuple) and len(self.class_weights) != needed:
            given = len(self.class_weights)
            raise ValueError(f"class_weights has {given} numbers for {needed} labels")
        if self.zero_shot is not None and len(self.zero_shot.answers) != needed:
            given = len(self.zero_shot.answers)
            raise ValueError(f"zero_shot.answers has {given} answers for {needed} labels")
        return self


class MaskedLM(Section):
    name: Literal["masked_lm"]
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are to be predicted: 80 % masked, 10 % another token, 10 % kept."""
    whole_words: bool = False
    """Mask all pieces of a word together."""
    next_sentence_prediction: bool = False
    """Also tell the next segment of a document from one of another document; BERT only."""


class Generation(Section):
    num_examples: CountInt = 64
    """Examples of a split that are answered by greedy generation; 0 for none."""
    max_new_tokens: PositiveInt = 64


class CausalLM(Section):
    name: Literal["causal_lm"]
    prompt: str | None = None
    """Template over columns, such as "{instruction}\\n", that is not learned; null for text."""
    completion: str | None = None
    """Template of what is learned after the prompt, such as "{output}"."""
    chat: bool = False
    """Train on the answers in the chat messages of data.columns.messages."""
    packing: bool = False
    """Several examples in one sequence, apart from each other."""
    generation: Generation = Generation()

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("give both of prompt and completion, or neither")
        if self.chat and self.prompt is not None:
            raise ValueError("give one of chat and prompt")
        if self.packing and not self.instructs:
            raise ValueError("packing joins instructions; text is cut into full blocks anyway")
        self.template_columns()
        return self

    def template_columns(self) -> list[tuple[str, str]]:
        """Returns the columns that prompt and completion name, with the key that does."""
        templates = (("prompt", self.prompt), ("completion", self.completion))
        return [
            (key, name)
            for key, template in templates
            if template is not None
            for name in template_fields(key, template)
        ]

    @property
    def instructs(self) -> bool:
        """Returns whether it learns answers to prompts rather than running text."""
        return self.chat or self.prompt is not None


class GeneratedAnswers(Generation):
    """How the pretrained causal model is asked a question before anything is learned."""

    prompt: str
    """Template of the roles, such as "{context}\\nQuestion: {question}\\nAnswer:"."""
    no_answer: str = "unanswerable"
    """The generated answer that means none, as an empty one does."""
    num_examples: PositiveInt = 64
    """Questions of a split that are asked."""
    max_new_tokens: PositiveInt = 16

    @model_validator(mode="after")
    def _asks(self) -> Self:
        template_fields("prompt", self.prompt, ("context", "question"))
        return self


class QuestionAnswering(Section):
    name: Literal["question_answering"]
    stride: Literal["auto"] | PositiveInt = "auto"
    """Tokens that neighbouring windows of a long context share; auto is a third of max_seq_length,
    128 at most."""
    num_best: PositiveInt = 20
    """Starts of each window that may begin an answer, and answers that are weighed against none."""
    max_answer_length: PositiveInt = 30
    """Tokens."""
    pair_separator: PairSeparator = "auto"
    """What stands between question and context if the tokenizer puts nothing there, as GPT-2's
    does: auto is the end token, or a line break without one; a text such as "\\n"; null is
    nothing."""
    zero_shot: GeneratedAnswers | None = None
    """Also measure what the pretrained causal model answers to a prompt, before training."""


class OtherTask(Section):
    name: str
    """A task without settings of its own."""


TASK_NAMES = ("classification", "masked_lm", "causal_lm", "question_answering")


def _task_kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in TASK_NAMES else "other"


TaskSettings = Annotated[
    Annotated[Classification, Tag("classification")]
    | Annotated[MaskedLM, Tag("masked_lm")]
    | Annotated[CausalLM, Tag("causal_lm")]
    | Annotated[QuestionAnswering, Tag("question_answering")]
    | Annotated[OtherTask, Tag("other")],
    Discriminator(_task_kind),
]
