"""A whole environment: try it with ``PYTHONPATH=examples envgym check reversal:Reversal``."""

import random

from envgym import ChatEnv, Message, ProceduralTasks, Score, Split, Task, Trajectory


class Reversal(ChatEnv):
    """Write a word backwards."""

    def tasks(self, split: Split) -> ProceduralTasks:
        return ProceduralTasks(self.word, split, self.config.size, self.config.task_seed)

    def word(self, rng: random.Random, split: Split) -> Task:
        word = "".join(rng.choices("abcdefgh", k=6))
        asked = Message(role="user", content=f"Write {word} backwards, and nothing else.")
        return Task(id=word, split=split, messages=(asked,), reference=word[::-1])

    def score(self, trajectory: Trajectory) -> Score:
        right = float(trajectory.final_text.strip() == trajectory.task.reference)
        return Score(value=right, accuracy=right)

    def gold(self, task: Task) -> list[Message]:
        return [Message(role="assistant", content=str(task.reference))]
