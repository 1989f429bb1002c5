"""A placeholder for speech synthesis without dependencies: one short note per word, as a WAV."""

import io
import math
import wave
from array import array
from functools import lru_cache
from typing import Final

RATE: Final = 8000
"""16-bit mono samples per second."""
NOTE_SECONDS: Final = 0.18
MAX_NOTES: Final = 20
PITCHES: Final = (131, 147, 165, 175, 196, 220, 247, 262)
"""Hertz, in the range of a speaking voice."""


def speak(text: str) -> bytes:
    notes = [_note(PITCHES[len(word) % len(PITCHES)]) for word in text.split()[:MAX_NOTES]] or [_note(PITCHES[0])]
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(b"".join(notes))
    return file.getvalue()


@lru_cache(len(PITCHES))
def _note(hertz: int) -> bytes:
    """With overtones and an envelope; a plain sine would beep."""
    count = int(RATE * NOTE_SECONDS)
    step = 2 * math.pi * hertz / RATE
    envelope = [math.sin(math.pi * i / count) for i in range(count)]
    samples = (envelope[i] * sum(math.sin(step * i * k) / k for k in (1, 2, 3)) for i in range(count))
    return array("h", (int(9000 * sample) for sample in samples)).tobytes()
