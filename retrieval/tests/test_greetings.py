"""What only greets or thanks is not a question, in five languages."""

import pytest

from retrieval.recall.greetings import is_greeting


@pytest.mark.parametrize(
    "text",
    [
        "Hi",
        "hello!!",
        "Good morning 👋",
        "Hey, how are you?",
        "Thank you so much for your help.",
        "Hallo, wie geht es dir heute?",
        "Guten Morgen!",
        "¡Buenos días!",
        "Hola, ¿cómo estás?",
        "Merci, à bientôt !",
        "Bonjour, comment allez-vous ?",
        "您好",
        "谢谢你的帮助！",
        "早安，今天还好吗？",
    ],
)
def test_greetings(text: str) -> None:
    assert is_greeting(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?!",
        "🦊",
        "How was my day?",
        "Was it a good night?",
        "Thanks, and what was my dog's name?",
        "Hello, who is Anna?",
        "Good morning, where was I?",
        "Hallo, was war das?",
        "Hi, what is the gate code?",
        "hi" * 50,
        "hippo",
        "Danke, wann ist die Prüfung?",
        "Hallo Welt in Python",
        "Hola, ¿dónde vive mi hermana?",
        "Merci, et le code du portail ?",
        "你好，我的狗叫什么名字？",
        "谢谢，我们上次说到哪里？",
        "hi " * 30,
    ],
)
def test_questions(text: str) -> None:
    assert not is_greeting(text)
