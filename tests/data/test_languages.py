"""Languages by script and common words, on sentences and on real data."""

import pytest

from promptopt.data.languages import count_languages, language_of
from tests.data_folder import read_jsonl_file


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("この法律は、国民の権利を定める。", "ja"),
        ("LLMのfine-tuningとは何ですか。", "ja"),
        ("ｶﾀｶﾅ ﾊﾝｶｸ", "ja"),
        ("人工智能是研究、开发用于模拟人的智能的理论。", "zh"),
        ("인공지능은 인간의 학습능력을 구현한다.", "ko"),
        ("What is the capital of Japan?", "en"),
        ("reset password", "en"),
        ("Méliès bought 2 kg of meat and she gave the half of it to her brother in the city.", "en"),
        ("Who helped Temüjin rescue his wife?", "en"),
        ("Künstliche Intelligenz ist ein Teilgebiet der Informatik", "other"),
        ("El perro come en la casa y luego duerme toda la noche sin parar", "other"),
        ("Искусственный интеллект", "other"),
        ("12:30 - 14:00", "none"),
        ("", "none"),
    ],
)
def test_sentences(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("file", "field", "language", "share"),
    [
        ("docqa_jsquad/jsquad.jsonl", "question", "ja", 0.99),
        ("docqa_jsquad/jsquad.jsonl", "context", "ja", 0.99),
        ("docqa_xquad/xquad_en.jsonl", "context", "en", 0.97),
        ("gsm8k/train.jsonl", "question", "en", 0.99),
        ("cls_banking77/train_30_per_class.jsonl", "text", "en", 0.99),
    ],
)
def test_real_rows(file: str, field: str, language: str, share: float) -> None:
    texts = [row[field] for row in list(read_jsonl_file(file))[:600]]
    counts = count_languages(texts)
    assert counts[language] >= share * len(texts)  # type: ignore[index]
