"""Training: an environment in, a policy out. torch is imported by ``loop``, ``nets`` and ``algorithms`` alone, when they are used."""

from puffer_edge.train.constraint import PIDLagrangianSettings, PPOLagrangianSettings
from puffer_edge.train.distillation.distil import distil
from puffer_edge.train.distillation.settings import DistilSettings
from puffer_edge.train.run import Run, algorithm_names, resume, train
from puffer_edge.train.sac_settings import DiscreteSACSettings, SACSettings
from puffer_edge.train.settings import PPOSettings
from puffer_edge.train.settings_file import preset, settings_for
from puffer_edge.train.trust_region_settings import CPOSettings, TRPOLagrangianSettings, TRPOSettings

__all__ = [
    "CPOSettings",
    "DiscreteSACSettings",
    "DistilSettings",
    "PIDLagrangianSettings",
    "PPOLagrangianSettings",
    "PPOSettings",
    "Run",
    "SACSettings",
    "TRPOLagrangianSettings",
    "TRPOSettings",
    "algorithm_names",
    "distil",
    "preset",
    "resume",
    "settings_for",
    "train",
]
