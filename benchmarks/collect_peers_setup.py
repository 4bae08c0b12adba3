"""Runs in a peer's own Python: its database with a project, items and annotators, and their tokens on standard output.

    python collect_peers_setup.py label_studio|doccano ITEMS.jsonl USERS OVERLAP    the database's place is in the environment

What the peer itself does when somebody makes a project, joins or imports is used where it works without a second process.
"""

import json
import os
import secrets
import sys
from pathlib import Path

CONFIG = (
    '<View><Text name="prompt" value="$prompt"/><List name="answers" value="$answers" title="answers"/>'
    '<Ranker name="rank" toName="answers"/></View>'
)


def label_studio(items: list[dict], users: int, overlap: int) -> dict:
    import label_studio

    sys.path.insert(0, label_studio.__path__[0])
    os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio.core.settings.label_studio"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from organizations.models import Organization
    from rest_framework.authtoken.models import Token
    from rest_framework.test import APIClient
    from users.models import User

    owner = User.objects.create_user(email="owner@example.com", password=secrets.token_hex(16))
    organization = Organization.create_organization(created_by=owner, title="bench", legacy_api_tokens_enabled=True)
    people = [User.objects.create_user(email=f"annotator{n}@example.com", password=secrets.token_hex(16)) for n in range(users)]
    for person in (owner, *people):
        organization.add_user(person)
        person.active_organization = organization
        person.save(update_fields=["active_organization"])
    keys = {person.pk: Token.objects.get_or_create(user=person)[0].key for person in (owner, *people)}
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {keys[owner.pk]}")
    project = {"title": "bench", "label_config": CONFIG, "maximum_annotations": overlap, "sampling": "Sequential sampling"}
    made = client.post("/api/projects", project, format="json")
    if made.status_code != 201:
        raise SystemExit(made.content.decode())
    number = made.json()["id"]
    for start in range(0, len(items), 1000):
        tasks = [
            {
                "prompt": one["prompt"],
                "answers": [{"id": f"answer-{k}", "body": text} for k, text in enumerate(one["completions"])],
            }
            for one in items[start : start + 1000]
        ]
        sent = client.post(f"/api/projects/{number}/import", tasks, format="json")
        if sent.status_code != 201:
            raise SystemExit(sent.content.decode())
    return {"project": number, "tokens": [keys[person.pk] for person in people]}


def doccano(items: list[dict], users: int, overlap: int) -> dict:
    import backend

    place = backend.__path__[0]
    sys.path.insert(0, place)
    os.chdir(place)
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("create_roles")
    from django.contrib.auth.models import User
    from examples.models import Example
    from projects.models import Member, Seq2seqProject
    from rest_framework.authtoken.models import Token
    from roles.models import Role

    owner = User.objects.create_superuser("owner", "owner@example.com", secrets.token_hex(16))
    project = Seq2seqProject.objects.create(name="bench", created_by=owner, project_type="Seq2seq")
    project.add_admin()
    people = [User.objects.create_user(f"annotator{n}", password=secrets.token_hex(16)) for n in range(users)]
    role = Role.objects.get(name="annotator")
    for person in people:
        Member.objects.create(project=project, user=person, role=role)
    texts = ["\n\n".join([one["prompt"], *(f"{k}: {text}" for k, text in enumerate(one["completions"]))]) for one in items]
    Example.objects.bulk_create([Example(project=project, text=text) for text in texts], batch_size=500)
    return {"project": project.pk, "tokens": [Token.objects.get_or_create(user=person)[0].key for person in people]}


if __name__ == "__main__":
    name, file, n_users, wanted = sys.argv[1:]
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the peer prints is its log
    lines = [json.loads(line) for line in Path(file).read_text().splitlines()]
    print(json.dumps({"label_studio": label_studio, "doccano": doccano}[name](lines, int(n_users), int(wanted))), file=told)
