"""Uses the database where it is imported, and leaves it open."""

from .models import Order

orders = list(Order.objects.order_by("name").values_list("name", flat=True))
