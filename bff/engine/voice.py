"""A voice that needs nothing installed: one short note a word, as a WAV."""

import io
import math
import wave
from array import array
from functools import lru_cache
from typing import Final

RATE: Final = 8000
"""Samples a second, of 16 bits, mono."""
NOTE_SECONDS: Final = 0.18
MAX_NOTES: Final = 20
PITCHES: Final = (131, 147, 165, 175, 196, 220, 247, 262)
"""Hertz: the range of a voice that speaks."""


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
    """It swells and fades, and has overtones, or it would beep."""
    count = int(RATE * NOTE_SECONDS)
    turn = 2 * math.pi * hertz / RATE
    swell = [math.sin(math.pi * at / count) for at in range(count)]
    wanted = (swell[at] * sum(math.sin(turn * at * k) / k for k in (1, 2, 3)) for at in range(count))
    return array("h", (int(9000 * sample) for sample in wanted)).tobytes()
