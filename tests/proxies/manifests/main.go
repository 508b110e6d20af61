// Reads a manifest as what it is for does, and fails where it has a member that is unknown there, or a value that is none:
//
//	manifests KIND FILE [DEFINITIONS...]
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/encoding/protojson"
	mesh "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

func check(kind, file string, definitions []string) error {
	if kind == "custom-resources" {
		return checkCustomResources(file, definitions)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	document, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	switch kind {
	case "istio-mesh-config":
		return protojson.Unmarshal(document, &mesh.MeshConfig{})
	case "consul-config-entry":
		entry, err := api.DecodeConfigEntryFromJSON(document)
		if err != nil {
			return err
		}
		// It leaves out what it does not know.
		known, err := json.Marshal(entry)
		if err != nil {
			return err
		}
		return missing(document, known)
	}
	return fmt.Errorf("no kind of manifest: %s", kind)
}

// Whether everything that was written is in what was understood.
func missing(written, understood []byte) error {
	var from, to any
	if err := json.Unmarshal(written, &from); err != nil {
		return err
	}
	if err := json.Unmarshal(understood, &to); err != nil {
		return err
	}
	return within(from, to, "")
}

func within(from, to any, path string) error {
	switch value := from.(type) {
	case map[string]any:
		other, _ := to.(map[string]any)
		for name, member := range value {
			if err := within(member, other[name], path+"/"+name); err != nil {
				return err
			}
		}
		return nil
	case []any:
		other, _ := to.([]any)
		if len(other) != len(value) {
			return fmt.Errorf("%s is not understood", path)
		}
		for index, item := range value {
			if err := within(item, other[index], fmt.Sprint(path, "/", index)); err != nil {
				return err
			}
		}
		return nil
	}
	if from != to {
		return fmt.Errorf("%s is not understood", path)
	}
	return nil
}

func main() {
	if err := check(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
