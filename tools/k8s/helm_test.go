package k8s_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// render is what the chart makes of these values.
func render(t *testing.T, values map[string]any) (objects []object) {
	t.Helper()
	chart, err := loader.Load(root + "deploy/helm")
	if err != nil {
		t.Fatal(err)
	}
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: "orphan-cleaner", Namespace: "nova"}, common.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
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

// The chart makes what kustomize makes, object by object, in both ways to run.
func TestChartIsKustomize(t *testing.T) {
	t.Parallel()
	for overlay, mode := range map[string]string{"deployment": "serve", "cronjob": "cron", "fleet": "fleet", "indexed": "indexed"} {
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
		want, got := byName(build(t, overlay)), byName(render(t, map[string]any{"mode": mode}))
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
}
