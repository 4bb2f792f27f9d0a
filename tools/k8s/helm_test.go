package k8s_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// valuesOf are these values and the chart's own.
func valuesOf(t *testing.T, values map[string]any) (*chart.Chart, common.Values, error) {
	t.Helper()
	loaded, err := loader.Load(root + "deploy/helm")
	if err != nil {
		t.Fatal(err)
	}
	all, err := util.ToRenderValues(loaded, values, common.ReleaseOptions{Name: "orphan-cleaner", Namespace: "nova"}, common.DefaultCapabilities)
	return loaded, all, err
}

// render is what the chart makes of these values.
func render(t *testing.T, values map[string]any) (objects []object) {
	t.Helper()
	loaded, all, err := valuesOf(t, values)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(loaded, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		for document := range strings.SplitSeq(files[path], "\n---\n") {
			if strings.HasSuffix(path, ".yaml") && strings.TrimSpace(document) != "" {
				objects = append(objects, decode(t, []byte(document)))
			}
		}
	}
	return objects
}

// plain is an object's spec or data as JSON, but for what Helm and kustomize do
// differently on purpose: the name of the ConfigMap, and the checksum of the settings.
func plain(t *testing.T, o object) string {
	t.Helper()
	encoded, err := json.Marshal(o.value)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(encoded, &fields); err != nil {
		t.Fatal(err)
	}
	delete(fields, "metadata")
	delete(fields, "status")
	var forget func(value any)
	forget = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			delete(value, "annotations")
			if _, is := value["configMapRef"]; is {
				value["configMapRef"] = "the settings"
			}
			if job, is := value["jobTemplate"].(map[string]any); is { // kustomize labels it, nobody reads that
				delete(job, "metadata")
			}
			for _, inner := range value {
				forget(inner)
			}
		case []any:
			for _, inner := range value {
				forget(inner)
			}
		}
	}
	if o.kind != "PrometheusRule" {
		forget(fields)
	}
	text, err := yaml.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The chart makes what kustomize makes, object by object, in each way to run, and
// with the autoscaling that is applied by itself.
func TestChartIsKustomize(t *testing.T) {
	t.Parallel()
	byName := func(objects []object) map[string]string {
		all := map[string]string{}
		for _, o := range objects {
			name := o.name
			if o.kind == "ConfigMap" {
				name = "orphan-cleaner" // without the hash
			}
			all[o.kind+" "+name] = plain(t, o)
		}
		return all
	}
	scalers := byName(buildIn(t, root+"deploy/k8s/autoscaling"))
	for overlay, mode := range map[string]string{"deployment": "serve", "cronjob": "cron", "fleet": "fleet", "indexed": "indexed"} {
		for _, scaled := range []bool{false, true} {
			want := byName(build(t, overlay))
			if scaled {
				maps.Copy(want, scalers)
			}
			got := byName(render(t, map[string]any{"mode": mode, "autoscaling": map[string]any{"enabled": scaled}}))
			if a, b := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(a, b) {
				t.Errorf("%s makes %q, kustomize %q", mode, a, b)
			}
			for name, spec := range want {
				if got[name] != spec {
					t.Errorf("%s: %s is\n%s\nby kustomize\n%s", mode, name, got[name], spec)
				}
			}
		}
	}
}

// Values change what they should, and other settings make other pods.
func TestChartValues(t *testing.T) {
	t.Parallel()
	values := map[string]any{
		"image": map[string]any{"tag": "v9.9.9"}, "settings": map[string]any{"ORPHAN_CLEANER_RETENTION": "45d"}, "oncall": false, "alerts": false, "replicas": 3,
	}
	before, after := pods(render(t, nil)), pods(render(t, values))
	const serve = "Deployment orphan-cleaner"
	if image := after[serve].Spec.Containers[0].Image; image != "ghcr.io/nova-social/orphan-cleaner:v9.9.9" {
		t.Errorf("the image is %s", image)
	}
	if before[serve].Annotations["checksum/settings"] == after[serve].Annotations["checksum/settings"] {
		t.Error("the pods stay as they are when a setting changes")
	}
	settings := find[corev1.ConfigMap](t, render(t, values), "orphan-cleaner").Data
	if settings["ORPHAN_CLEANER_RETENTION"] != "45d" || settings["ORPHAN_CLEANER_INTERVAL"] != "1h" {
		t.Errorf("settings: %v", settings)
	}
	if len(after) != 3 {
		t.Errorf("without the pod for people on call there are %d", len(after))
	}
	scaled := render(t, map[string]any{"autoscaling": map[string]any{
		"enabled": true, "cpu": 60, "services": map[string]any{"auth-service": nil, "messaging-service": map[string]any{"maxReplicas": 9}},
	}})
	scaler := find[autoscalingv2.HorizontalPodAutoscaler](t, scaled, "messaging-service").Spec
	if !is(scaler.MinReplicas, 3) || scaler.MaxReplicas != 9 || !is(scaler.Metrics[0].Resource.Target.AverageUtilization, 60) {
		t.Errorf("%+v", scaler)
	}
	if slices.ContainsFunc(scaled, func(o object) bool { return o.kind == "HorizontalPodAutoscaler" && o.name != "messaging-service" }) {
		t.Error("a service that was taken out is scaled")
	}
}

// A value that there is not, misspelt or in the wrong place, is refused: Helm would pass it over.
func TestChartRefusesUnknownValues(t *testing.T) {
	t.Parallel()
	for _, values := range []map[string]any{
		{"replica": 3},
		{"mode": "daemon"},
		{"replicas": "two"},
		{"autoscaling": map[string]any{"enabeld": true}},
		{"autoscaling": map[string]any{"services": map[string]any{"auth-service": map[string]any{"max": 4}}}},
		{"settings": map[string]any{"ORPHAN_CLEANER_RETENTION": nil, "retention": "30d"}},
	} {
		if _, _, err := valuesOf(t, values); err == nil {
			t.Errorf("%v is accepted", values)
		}
	}
}
