"""The same model in the worker's own process, through transformers: where vLLM cannot start.

It is shown the same pictures and asked the same prompts. A question with words is answered by the
logits of its words at the token where they part, behind the beginning that all answers share; a
caption by greedy decoding.
"""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from curation.errors import ConfigError, one_line
from curation.models import Model, torch_device
from curation.settings.vlm import VlmSettings
from curation.vlm.asking import MalformedError, Question, Questions, Reply, read_answer, weigh
from curation.vlm.session import Listener


class InProcessVlm:
    """An Asker without a server; the weights are loaded when it is first asked."""

    def __init__(self, settings: VlmSettings, questions: Questions, model: Model) -> None:
        self._settings = settings
        self._questions = questions
        self._weights = model
        self._loaded: tuple[Any, Any] | None = None

    def ask(self, questions: Sequence[Question], listener: Listener) -> list[Reply]:
        """Answers `batch_size` questions in one pass; replies in their order."""
        replies: list[Reply] = []
        for start in range(0, len(questions), self._settings.batch_size):
            replies += self._ask_some(questions[start : start + self._settings.batch_size], listener)
        return replies

    def _ask_some(self, questions: Sequence[Question], listener: Listener) -> list[Reply]:
        replies: dict[str, Reply] = {}
        shown: dict[str, list[Image.Image]] = {}
        for question in questions:
            try:
                shown[question.key] = [
                    Image.open(io.BytesIO(self._questions.jpeg(person))) for person in question.people
                ]
            except Exception as error:  # photos of strangers raise anything; the row is failed
                replies[question.key] = Reply(None, error=f"photo: {one_line(error)}")
        asked = [question for question in questions if question.key in shown]
        if asked:
            model, processor = self._open()
            for question in asked:
                listener.asking(question)
            answer = self._words if self._questions.prompt.words else self._sentences
            for question, reply in zip(
                asked, answer(model, processor, [shown[question.key] for question in asked]), strict=True
            ):
                replies[question.key] = reply
                if reply.error is None:
                    listener.answered(question, reply)
        return [replies[question.key] for question in questions]

    def _open(self) -> tuple[Any, Any]:
        """The model and its processor."""
        if self._loaded is None:
            from transformers import AutoModelForImageTextToText, AutoProcessor

            try:
                processor = AutoProcessor.from_pretrained(self._weights.path, local_files_only=True)
                model = AutoModelForImageTextToText.from_pretrained(
                    self._weights.path, local_files_only=True, dtype=self._settings.dtype
                )
            except Exception as error:  # a broken folder raises whatever it meets first
                raise ConfigError(
                    f"models.cards.{self._weights.name}: {self._weights.path} cannot be loaded by "
                    f"transformers: {one_line(error)}"
                ) from None
            self._loaded = (model.eval().to(torch_device()), processor)
        return self._loaded

    def _inputs(self, processor: Any, pictures: list[list[Image.Image]], opening: str) -> Any:
        """All questions show as many pictures of one size, so their prompts are equally long."""
        content: list[dict[str, Any]] = [{"type": "text", "text": self._questions.prompt.text}]
        content += [{"type": "image"} for _ in pictures[0]]
        message = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False) + opening
        begins = processor.tokenizer.bos_token
        return processor(
            text=[prompt] * len(pictures),
            images=pictures,
            return_tensors="pt",
            # Templates of Gemma and LLaVA write the first token themselves; a second one is another prompt.
            add_special_tokens=not (begins and prompt.startswith(begins)),
        )

    def _words(self, model: Any, processor: Any, pictures: list[list[Image.Image]]) -> list[Reply]:
        import torch

        words = self._questions.prompt.words
        answers = [
            processor.tokenizer(f'{self._questions.prompt.opening}{word}"}}', add_special_tokens=False)[
                "input_ids"
            ]
            for word in words
        ]
        parts = next(i for i, ids in enumerate(zip(*answers, strict=False)) if len(set(ids)) == len(ids))
        first = torch.tensor(answers[0][:parts], dtype=torch.long)
        inputs = self._inputs(processor, pictures, "")
        again = first.repeat(len(pictures), 1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], again], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.cat(
                [inputs["mm_token_type_ids"], torch.zeros_like(again)], dim=1
            )
        with torch.inference_mode():
            logits = model(**inputs.to(model.device), logits_to_keep=1).logits[:, -1].float()
        scores = logits[:, [ids[parts] for ids in answers]].log_softmax(dim=-1).cpu().tolist()
        yes, no = words.index("yes"), words.index("no")
        return [Reply(words[row.index(max(row))], weigh(row[yes], row[no])) for row in scores]

    def _sentences(self, model: Any, processor: Any, pictures: list[list[Image.Image]]) -> list[Reply]:
        import torch

        inputs = self._inputs(processor, pictures, "")
        with torch.inference_mode():
            written = model.generate(
                **inputs.to(model.device), max_new_tokens=self._settings.max_tokens, do_sample=False
            )
        fresh = written[:, inputs["input_ids"].shape[1] :]
        replies = []
        for text in processor.tokenizer.batch_decode(fresh, skip_special_tokens=True):
            try:
                replies.append(Reply(read_answer(self._questions.prompt, text)))
            except MalformedError as error:
                replies.append(Reply(None, error=str(error)))
        return replies
