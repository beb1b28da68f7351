"""A client of the paho stack. Usage: VERSION SERVER TOPIC...; subscribes to all topics by one packet, at QoS 1, and prints the
reason codes of the answer."""

import sys
import threading

import paho.mqtt.client as mqtt

version, server, *topics = sys.argv[1:]
protocol = {"311": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=protocol)
connected, answered = threading.Event(), threading.Event()
reasons = []


def on_subscribe(client, userdata, mid, codes, properties):
    reasons.extend(str(code) for code in codes)
    answered.set()


client.on_connect = lambda *arguments: connected.set()
client.on_subscribe = on_subscribe
client.connect(server, 1883)
client.loop_start()
if not connected.wait(5):
    print("not connected")
    sys.exit()
wanted = [(topic, mqtt.SubscribeOptions(qos=1) if version == "5" else 1) for topic in topics]
client.subscribe(wanted)
print(", ".join(reasons) if answered.wait(5) else "no answer")
