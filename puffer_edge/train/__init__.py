"""Training: an environment in, a policy out. torch is imported by ``loop``, ``nets`` and ``algorithms`` alone, when they are used."""

from puffer_edge.train.distillation.distil import distil
from puffer_edge.train.distillation.settings import DistilSettings
from puffer_edge.train.run import Run, algorithm_names, resume, train
from puffer_edge.train.sac_settings import SACSettings
from puffer_edge.train.settings import PPOSettings
from puffer_edge.train.settings_file import preset, settings_for

__all__ = ["DistilSettings", "PPOSettings", "Run", "SACSettings", "algorithm_names", "distil", "preset", "resume", "settings_for", "train"]
