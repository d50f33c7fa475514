{{/* `marquee retrain` as a list of words, without --store (MARQUEE_STORE) and --work. */}}
{{- define "marquee.retrain" -}}
{{- $words := list "marquee" "retrain" -}}
{{- $t := .Values.training -}}
{{- if $t.data.existingClaim -}}
{{- $words = concat $words (list "--input" (printf "/ratings/%s" $t.data.path | trimSuffix "/")) -}}
{{- else -}}
{{- $s := $t.data.synthetic -}}
{{- $words = concat $words (list "--users" (include "marquee.plain" $s.users) "--items" (include "marquee.plain" $s.items) "--events" (include "marquee.plain" $s.events)) -}}
{{- end -}}
{{- $words = concat $words (list "--epochs" (include "marquee.plain" $t.epochs) "--max-drop" (include "marquee.plain" $t.maxDrop)) -}}
{{- toJson $words -}}
{{- end -}}

{{/* More words of a training that may have GPUs, as a list. */}}
{{- define "marquee.gpuWords" -}}
{{- ternary (list "--gpu") list (gt (int .Values.training.gpu.count) 0) | toJson -}}
{{- end -}}

{{/* Whether there is a Redis for users' state. */}}
{{- define "marquee.hasState" -}}
{{- $state := .Values.redis.state -}}
{{- if or $state.enabled $state.externalUrl $state.existingSecret }}yes{{ end -}}
{{- end -}}

{{/* Whether a training that may follow another loads the online feature store. */}}
{{- define "marquee.materializes" -}}
{{- if and .Values.training.materialize (include "marquee.hasState" .) }}yes{{ end -}}
{{- end -}}

{{/* Where feedback lands for the next training; nothing where there is none. */}}
{{- define "marquee.feedbackLog" -}}
{{- if and .Values.training.feedback.enabled (include "marquee.hasState" .) -}}
{{- .Values.training.feedback.log | default (printf "%s/log" (.Values.store.url | default "/store" | trimSuffix "/")) -}}
{{- end -}}
{{- end -}}

{{/* Copies what the state's Redis has and the log has not. */}}
{{- define "marquee.exportContainer" -}}
{{- $feedback := .Values.training.feedback -}}
- name: export-events
  image: {{ include "marquee.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: {{ list "marquee" "events" "export" "--log" (include "marquee.feedbackLog" .) "--keep-hours" (include "marquee.plain" $feedback.keepHours) | toJson }}
  env:
    {{- include "marquee.storeEnv" . | nindent 4 }}
    {{- include "marquee.stateEnv" . | nindent 4 }}
  resources:
    {{- include "marquee.resources" $feedback | nindent 4 }}
  securityContext:
    {{- include "marquee.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- include "marquee.storeMount" . | nindent 4 }}
{{- end -}}

{{- define "marquee.ratingsVolume" -}}
{{- with .Values.training.data.existingClaim }}
- name: ratings
  persistentVolumeClaim:
    claimName: {{ . }}
    readOnly: true
{{- end }}
{{- end -}}

{{- define "marquee.ratingsMount" -}}
{{- if .Values.training.data.existingClaim }}
- name: ratings
  mountPath: /ratings
  readOnly: true
{{- end }}
{{- end -}}

{{/* A pod that trains by itself on a Ray of its own.
Call with (dict "root" $ "component" ... "extra" (list of words) "resources" yaml
"image" ... "learnsFeedback" bool "materialize" bool "gpu" bool). */}}
{{- define "marquee.trainingPod" -}}
{{- $ := .root -}}
{{- $words := concat (include "marquee.retrain" $ | fromJsonArray) (list "--work" "/tmp/retrain") .extra -}}
metadata:
  labels:
    {{- include "marquee.selectorLabels" (list $ .component) | nindent 4 }}
spec:
  serviceAccountName: {{ include "marquee.serviceAccount" $ }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: Never
  {{- include "marquee.pullSecrets" $ | nindent 2 }}
  securityContext:
    {{- include "marquee.podSecurity" $ | nindent 4 }}
  {{- if .gpu }}
  {{- include "marquee.gpuPlace" $ | nindent 2 }}
  {{- end }}
  {{- $takeStore := and $.Values.security.takeVolumes (not $.Values.store.url) }}
  {{- $export := and .learnsFeedback (include "marquee.feedbackLog" $) }}
  {{- if or $takeStore $export $.Values.mlflow.enabled }}
  initContainers:
    {{- if $takeStore }}
    {{- include "marquee.takeVolume" (list $ "store" "/store") | nindent 4 }}
    {{- end }}
    {{- if $.Values.mlflow.enabled }}
    # A training that cannot record itself fails, and is not begun anew at once.
    - name: wait-for-mlflow
      image: {{ include "marquee.image" $ }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      command: [bash, -c]
      args:
        - |
          until wget -q -T 5 -O /dev/null http://{{ include "marquee.fullname" $ }}-mlflow:5000/health
          do echo "waiting for MLflow"; sleep 2; done
      resources:
        {{- include "marquee.resources" (dict "cpu" "50m" "memory" "64Mi") | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" $ | nindent 8 }}
    {{- end }}
    {{- if $export }}
    {{- include "marquee.exportContainer" $ | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- if $export }}{{ $words = concat $words (list "--log" (include "marquee.feedbackLog" $)) }}{{ end }}
  containers:
    - name: retrain
      image: {{ .image }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      {{- if .materialize }}
      # Exit status 4: the new version answers, but the feature store is the old one.
      command:
        - bash
        - -c
        - '"$@" || exit; marquee features materialize /tmp/retrain/data || exit 4'
        - retrain
      args: {{ toJson $words }}
      {{- else }}
      command: {{ toJson $words }}
      {{- end }}
      env:
        - {name: HOME, value: /tmp}
        # A Ray of this pod alone.
        - {name: RAY_AUTH_MODE, value: disabled}
        {{- include "marquee.storeEnv" $ | nindent 8 }}
        {{- include "marquee.mlflowEnv" $ | nindent 8 }}
        {{- if .materialize }}
        {{- include "marquee.stateEnv" $ | nindent 8 }}
        {{- end }}
      resources:
        {{- .resources | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" $ | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: shared-memory, mountPath: /dev/shm}
        {{- include "marquee.storeMount" $ | nindent 8 }}
        {{- include "marquee.ratingsMount" $ | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ $.Values.training.scratch }}
    - name: shared-memory
      emptyDir:
        medium: Memory
        sizeLimit: 2Gi
    {{- include "marquee.storeVolume" $ | nindent 4 }}
    {{- include "marquee.ratingsVolume" $ | nindent 4 }}
{{- end -}}
