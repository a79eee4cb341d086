import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models

from accounts.audit_queue import queue_new_events
from accounts.fact_triggers import insert_only


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_audit_events_are_insert_only'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditEventToSeal',
            fields=[
                ('event', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='accounts.auditevent')),
            ],
        ),
        migrations.CreateModel(
            name='AuditSeal',
            fields=[
                ('number', models.PositiveBigIntegerField(primary_key=True, serialize=False)),
                ('sealed_at', models.DateTimeField(db_index=True)),
                ('entries', models.JSONField()),
                ('previous_mac', models.CharField(blank=True, max_length=64)),
                ('mac', models.CharField(max_length=64)),
                ('key_id', models.CharField(max_length=16)),
            ],
            options={
                'ordering': ['-number'],
            },
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['laboratory', 'action', '-at'], name='audit_laboratory_action'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(condition=models.Q(('request_id', ''), _negated=True), fields=['request_id'], name='audit_request'),
        ),
        migrations.AddField(
            model_name='laboratory',
            name='requires_second_factor',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.CreateModel(
            name='Invitation',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('email', models.EmailField(max_length=254)),
                ('full_name', models.CharField(blank=True, max_length=120, verbose_name='name')),
                ('role', models.CharField(choices=[('technologist', 'Technologist'), ('reader', 'Reader'), ('auditor', 'Auditor'), ('admin', 'Laboratory administrator'), ('service', 'Service account')], max_length=20)),
                ('secret_sha256', models.CharField(max_length=64, unique=True)),
                ('invited_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('withdrawn_at', models.DateTimeField(blank=True, null=True)),
                ('accepted_by', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='invitation', to=settings.AUTH_USER_MODEL)),
                ('invited_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='invitations', to=settings.AUTH_USER_MODEL)),
                ('laboratory', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='invitations', to='accounts.laboratory')),
            ],
            options={
                'ordering': ['-invited_at', '-id'],
            },
        ),
        insert_only("accounts_auditseal"),
        queue_new_events(),
    ]
