import classifier.models.export
import django.core.validators
import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models

from accounts.fact_triggers import insert_only


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0003_trust'),
        ('classifier', '0007_idempotency'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name='notification',
            name='kind',
            field=models.CharField(choices=[('case_assigned', 'A case was assigned to you'), ('images_done', 'All pictures of a case are classified'), ('batch_finished', 'A batch is finished'), ('report_amended', 'A report was amended'), ('report_corrected', 'A report was corrected'), ('emergency_access', 'Another laboratory opened a case in an emergency')], max_length=24),
        ),
        migrations.CreateModel(
            name='BlindReread',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('drawn_at', models.DateTimeField(auto_now_add=True)),
                ('reviewed_from', models.DateField(blank=True, null=True)),
                ('reviewed_to', models.DateField(blank=True, null=True)),
                ('drawn_from', models.PositiveIntegerField(verbose_name='cells that could have been drawn')),
                ('size', models.PositiveIntegerField(validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1000)])),
                ('seed', models.CharField(max_length=32)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
                ('drawn_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='drawn_rereads', to=settings.AUTH_USER_MODEL)),
                ('laboratory', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='rereads', to='accounts.laboratory')),
                ('reader', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='rereads', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-drawn_at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='EmergencyAccess',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('reason', models.TextField(max_length=500)),
                ('opened_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('case', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='emergency_accesses', to='classifier.case')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='emergency_accesses', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name_plural': 'emergency accesses',
                'ordering': ['-opened_at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='Export',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('predictions', 'Predictions'), ('reviews', 'Reviews'), ('audit_events', 'Audit trail'), ('de_identified', 'De-identified pictures and reviews')], max_length=20)),
                ('filters', models.JSONField(default=dict)),
                ('requested_at', models.DateTimeField(auto_now_add=True)),
                ('claim_token', models.UUIDField(blank=True, null=True)),
                ('claim_expires_at', models.DateTimeField(blank=True, null=True)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('faults', models.PositiveSmallIntegerField(default=0)),
                ('position', models.JSONField(blank=True, null=True)),
                ('rows_total', models.PositiveIntegerField(blank=True, null=True)),
                ('rows_written', models.PositiveIntegerField(default=0)),
                ('bytes_written', models.PositiveBigIntegerField(default=0)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('failure_code', models.CharField(blank=True, max_length=40)),
                ('file', models.FileField(blank=True, max_length=200, upload_to=classifier.models.export.export_path)),
                ('sha256', models.CharField(blank=True, max_length=64)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('laboratory', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='exports', to='accounts.laboratory')),
                ('requested_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='exports', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-requested_at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='LegalHold',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('version', models.PositiveIntegerField()),
                ('holds', models.BooleanField()),
                ('reason', models.TextField(max_length=500)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('case', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='legal_holds', to='classifier.case')),
            ],
            options={
                'ordering': ['case', '-version'],
            },
        ),
        migrations.CreateModel(
            name='PseudonymErasure',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('digest', models.CharField(max_length=64)),
                ('cases', models.JSONField(verbose_name='ids of the cases')),
                ('reason', models.TextField(max_length=500)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('laboratory', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='erasures', to='accounts.laboratory')),
            ],
            options={
                'ordering': ['-at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='RereadCell',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField()),
                ('image', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='classifier.cellimage')),
                ('reread', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='cells', to='classifier.blindreread')),
                ('review', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='classifier.review')),
            ],
            options={
                'ordering': ['reread', 'position'],
            },
        ),
        migrations.CreateModel(
            name='BlindReading',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('label', models.CharField(blank=True, choices=[('neutrophil', 'Neutrophil'), ('band_neutrophil', 'Band neutrophil'), ('eosinophil', 'Eosinophil'), ('basophil', 'Basophil'), ('lymphocyte', 'Lymphocyte'), ('monocyte', 'Monocyte'), ('promyelocyte', 'Promyelocyte'), ('myelocyte', 'Myelocyte'), ('metamyelocyte', 'Metamyelocyte'), ('immature_granulocyte', 'Immature granulocyte'), ('erythroblast', 'Erythroblast'), ('platelet', 'Platelet'), ('smudge_cell', 'Smudge cell'), ('artefact', 'Artefact')], max_length=24)),
                ('unusable', models.BooleanField(default=False)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('reader', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('cell', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='reading', to='classifier.rereadcell')),
            ],
        ),
        migrations.CreateModel(
            name='RetentionRule',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('version', models.PositiveIntegerField()),
                ('keep_days', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(30), django.core.validators.MaxValueValidator(36500)])),
                ('reason', models.TextField(max_length=500)),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('laboratory', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='retention_rules', to='accounts.laboratory')),
            ],
            options={
                'ordering': ['laboratory', '-version'],
            },
        ),
        migrations.CreateModel(
            name='RemovedPicture',
            fields=[
                ('image', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='removed_picture', serialize=False, to='classifier.cellimage')),
                ('at', models.DateTimeField(auto_now_add=True)),
                ('rule', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='removed_pictures', to='classifier.retentionrule')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='WorkerCounts',
            fields=[
                ('slot', models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ('totals', models.JSONField(default=dict)),
            ],
            options={
                'verbose_name_plural': 'worker counts',
            },
        ),
        migrations.AddIndex(
            model_name='cellimage',
            index=models.Index(fields=['status'], name='image_status'),
        ),
        migrations.AddIndex(
            model_name='blindreread',
            index=models.Index(fields=['laboratory', '-drawn_at', '-id'], name='reread_newest'),
        ),
        migrations.AddIndex(
            model_name='emergencyaccess',
            index=models.Index(fields=['user', 'expires_at'], name='emergency_access_of_user'),
        ),
        migrations.AddConstraint(
            model_name='emergencyaccess',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='emergency_access_has_reason'),
        ),
        migrations.AddIndex(
            model_name='export',
            index=models.Index(fields=['laboratory', '-requested_at', '-id'], name='export_newest'),
        ),
        migrations.AddIndex(
            model_name='export',
            index=models.Index(condition=models.Q(('finished_at', None)), fields=['requested_at'], name='export_waiting'),
        ),
        migrations.AddConstraint(
            model_name='export',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('claim_expires_at', None), ('claim_token', None)), models.Q(('claim_expires_at__isnull', False), ('claim_token__isnull', False), ('finished_at', None)), _connector='OR'), name='export_claim_has_token_and_expiry'),
        ),
        migrations.AddIndex(
            model_name='prediction',
            index=models.Index(fields=['-created_at', '-id'], name='prediction_newest'),
        ),
        migrations.AddIndex(
            model_name='prediction',
            index=models.Index(fields=['model_version', '-created_at'], name='prediction_of_model_newest'),
        ),
        migrations.AddIndex(
            model_name='review',
            index=models.Index(fields=['-created_at', '-id'], name='review_newest'),
        ),
        migrations.AddIndex(
            model_name='cellimage',
            index=models.Index(condition=models.Q(('status', 'failed')), fields=['failure_code'], name='image_failed'),
        ),
        migrations.AddConstraint(
            model_name='legalhold',
            constraint=models.UniqueConstraint(fields=('case', 'version'), name='legal_hold_version_unique'),
        ),
        migrations.AddConstraint(
            model_name='legalhold',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='legal_hold_has_reason'),
        ),
        migrations.AddIndex(
            model_name='pseudonymerasure',
            index=models.Index(fields=['laboratory', 'digest'], name='erasure_digest'),
        ),
        migrations.AddConstraint(
            model_name='pseudonymerasure',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='erasure_has_reason'),
        ),
        migrations.AddConstraint(
            model_name='rereadcell',
            constraint=models.UniqueConstraint(fields=('reread', 'position'), name='reread_position_unique'),
        ),
        migrations.AddConstraint(
            model_name='rereadcell',
            constraint=models.UniqueConstraint(fields=('reread', 'image'), name='reread_image_unique'),
        ),
        migrations.AddConstraint(
            model_name='blindreading',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('label', ''), ('unusable', True)), models.Q(('unusable', False), models.Q(('label', ''), _negated=True)), _connector='OR'), name='blind_reading_has_label_or_is_unusable'),
        ),
        migrations.AddConstraint(
            model_name='retentionrule',
            constraint=models.UniqueConstraint(fields=('laboratory', 'version'), name='retention_rule_version_unique'),
        ),
        migrations.AddConstraint(
            model_name='retentionrule',
            constraint=models.CheckConstraint(condition=models.Q(('keep_days', None), ('keep_days__gte', 30), _connector='OR'), name='retention_at_least_30_days'),
        ),
        insert_only("classifier_rereadcell"),
        insert_only("classifier_blindreading"),
        insert_only("classifier_emergencyaccess"),
        insert_only("classifier_retentionrule"),
        insert_only("classifier_legalhold"),
        insert_only("classifier_removedpicture"),
        insert_only("classifier_pseudonymerasure"),
    ]
