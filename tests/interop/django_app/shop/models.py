from django.db import models


class Order(models.Model):
    name = models.CharField(max_length=100)
    amount = models.IntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(amount__gte=0), name="not_negative")]
