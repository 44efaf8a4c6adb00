{{/* The chart's name, for labels. */}}
{{- define "tunegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of all objects. 52 characters: room for the longest suffix of ours, and for a pod's own. */}}
{{- define "tunegate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What never changes in a release: selectors can't be changed later. */}}
{{- define "tunegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tunegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tunegate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tunegate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: gateway
app.kubernetes.io/part-of: tunegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "tunegate.serviceAccountName" -}}
{{- default (include "tunegate.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "tunegate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{/* What the schema can't see: a section of the configuration that the chart writes itself. */}}
{{- define "tunegate.check" -}}
{{- if regexMatch "(?m)^\\s*(\\[\\s*)?(admin|state)\\s*[.\\]]" .Values.config }}
{{- fail "config: leave [admin] and [state] to the chart: it sets the address, the folder and the key (adminKey.existingSecret)" }}
{{- end }}
{{- end }}

{{/* The claim of the training files' volume; nothing where they stay in the state folder. */}}
{{- define "tunegate.filesClaim" -}}
{{- if .Values.files.existingClaim -}}
{{ .Values.files.existingClaim }}
{{- else if .Values.files.size -}}
{{ include "tunegate.fullname" . }}-files
{{- end }}
{{- end }}

{{/* The pod, the same under a StatefulSet and a Deployment. */}}
{{- define "tunegate.podTemplate" -}}
{{- include "tunegate.check" . -}}
{{- $postgres := eq .Values.database.type "postgres" -}}
metadata:
  labels:
    {{- include "tunegate.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: tunegate
    {{- if .Values.restartOnConfigChange }}
    checksum/config: {{ .Values.config | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tunegate.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  # The pause before SIGTERM, the drain, and 25 s for the ledger, the worker and the store to end well.
  terminationGracePeriodSeconds: {{ add .Values.preStopSeconds .Values.drainSeconds 25 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: tunegate
      image: {{ include "tunegate.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      # tunegate.toml is read from here, by `kubectl exec … -- tunegate COMMAND` too.
      workingDir: /etc/tunegate
      env:
        - name: TUNEGATE__SERVER__LISTEN
          value: {{ printf "%s:8080" .Values.bindAddress | quote }}
        - name: TUNEGATE__SERVER__DRAIN_TIMEOUT_MS
          value: {{ mul .Values.drainSeconds 1000 | quote }}
        - name: TUNEGATE__ADMIN__LISTEN
          value: {{ printf "%s:8081" .Values.bindAddress | quote }}
        - name: TUNEGATE__ADMIN__KEY__FILE
          value: /run/secrets/tunegate/admin-key
        - name: TUNEGATE__STATE__DIR
          value: /var/lib/tunegate
        {{- if include "tunegate.filesClaim" . }}
        - name: TUNEGATE__TUNING__FOLDER
          value: /var/lib/tunegate-files
        {{- end }}
        {{- if $postgres }}
        - name: TUNEGATE__DATABASE__URL__FILE
          value: /run/secrets/tunegate/database-url
        {{- end }}
        - name: TUNEGATE__LOG__FORMAT
          value: {{ .Values.logFormat }}
        - name: TUNEGATE__WORKER__ENABLED
          value: {{ .Values.worker.enabled | quote }}
        {{- if .Values.worker.enabled }}
        - name: TUNEGATE__WORKER__MODEL_FILE
          value: {{ .Values.worker.modelFile | quote }}
        - name: TUNEGATE__WORKER__TUNING_MEMORY_MIB
          value: {{ .Values.worker.tuningMemoryMiB | toString | quote }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: data
          containerPort: 8080
        - name: admin
          containerPort: 8081
      # Two minutes to begin: the tables may have to be brought into a new shape.
      startupProbe:
        httpGet:
          path: /livez
          port: admin
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet:
          path: /livez
          port: admin
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet:
          path: /readyz
          port: admin
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.preStopSeconds }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/tunegate
          readOnly: true
        - name: secrets
          mountPath: /run/secrets/tunegate
          readOnly: true
        - name: state
          mountPath: /var/lib/tunegate
        {{- if include "tunegate.filesClaim" . }}
        - name: files
          mountPath: /var/lib/tunegate-files
        {{- end }}
        {{- if .Values.pepper.existingSecret }}
        - name: pepper
          mountPath: /var/lib/tunegate/pepper
          subPath: pepper
          readOnly: true
        {{- end }}
        {{- if and .Values.worker.enabled .Values.worker.existingClaim }}
        - name: models
          mountPath: /models
          readOnly: true
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "tunegate.fullname" . }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          - secret:
              name: {{ .Values.adminKey.existingSecret }}
              items:
                - key: {{ .Values.adminKey.key }}
                  path: admin-key
          {{- if $postgres }}
          - secret:
              name: {{ .Values.database.existingSecret }}
              items:
                - key: {{ .Values.database.key }}
                  path: database-url
          {{- end }}
          {{- range .Values.providerSecrets }}
          - secret:
              name: {{ .secretName }}
              items:
                - key: {{ .key }}
                  path: {{ .name }}
          {{- end }}
    {{- if $postgres }}
    # Sockets: what must last is in the database, and training files are on the volume of `files`. Without one they are
    # here: they go with the pod, and too much of them evicts it.
    - name: state
      emptyDir:
        sizeLimit: 64Mi
    {{- end }}
    {{- with include "tunegate.filesClaim" . }}
    - name: files
      persistentVolumeClaim:
        claimName: {{ . }}
    {{- end }}
    {{- if .Values.pepper.existingSecret }}
    - name: pepper
      secret:
        secretName: {{ .Values.pepper.existingSecret }}
        defaultMode: 0440
        items:
          - key: {{ .Values.pepper.key }}
            path: pepper
    {{- end }}
    {{- if and .Values.worker.enabled .Values.worker.existingClaim }}
    - name: models
      persistentVolumeClaim:
        claimName: {{ .Values.worker.existingClaim }}
        readOnly: true
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
