"""A small project; where its data is, the test says by environment."""

import os

SECRET_KEY = "for tests"
USE_TZ = True
DEBUG = True  # Queries are remembered, as long as nobody forgets them.
INSTALLED_APPS = ["django.contrib.contenttypes", "django_rq", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SHOP_DATABASE"],
        "CONN_MAX_AGE": int(os.environ.get("SHOP_CONN_MAX_AGE", 0)),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
RQ_QUEUES = {
    "default": {"URL": os.environ["SHOP_REDIS"], "DEFAULT_RESULT_TTL": 700},
    "at_once": {"URL": os.environ["SHOP_REDIS"]},
    "packed": {"URL": os.environ["SHOP_REDIS"], "SERIALIZER": "rq.serializers.JSONSerializer"},
}
