"""Growth of Prometheus samples during a test."""

from prometheus_client import REGISTRY

from pocket_relayer.metric_batches import write_due


class Growth:
    """Growth of samples since its creation."""

    def __init__(self):
        self._before = {}
        self._before = self._all()

    @staticmethod
    def _all():
        write_due()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in REGISTRY.collect()
            for sample in family.samples
        }

    def of(self, name, **labels):
        key = (name, tuple(sorted(labels.items())))
        return self._all().get(key, 0) - self._before.get(key, 0)
